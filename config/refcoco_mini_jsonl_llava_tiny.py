# The same 115 expressions from Shikra's JSON lines; the items equal those of refcoco_mini_refer_llava_tiny.py.
_base_ = ["_base_/model/llava_tiny.py", "_base_/train/memorise_cpu.py"]

_root = "{{$MLLM_TEST_DATA:../shared/data}}/refcoco_mini"
_question = "Where is <expr> in the image <image> ? Give its box."
_files = ["refcoco_unc_val", "refcoco_unc_testA", "refcoco_unc_testB", "refcoco+_unc_val", "refcoco+_unc_testA"]
_files += ["refcoco+_unc_testB", "refcocog_umd_val", "refcocog_umd_test"]
_everything = dict(
    type="ConcatDataset",
    datasets=[
        dict(
            type="RECJsonl",
            path=f"{_root}/shikra_jsonl/REC_{_file}.jsonl",
            image_root=_root + "/images/train2014",
            questions=_question,
        )
        for _file in _files
    ],
)
_set = dict(dataset=_everything, evaluators=[dict(type="RECEvaluator")])

data_args = dict(train=_everything, validation=_set, test=_set)
training_args = dict(output_dir="work_dirs/refcoco_mini_jsonl_llava_tiny")
