# 115 real expressions on real COCO pictures, REFER layout; a small random LLaVA on a CPU learns them by heart.
_base_ = ["_base_/model/llava_tiny.py", "_base_/train/memorise_cpu.py"]

_root = "{{$MLLM_TEST_DATA:../shared/data}}/refcoco_mini"
_common = dict(type="RefCOCO", root=_root, image_root=_root + "/images/train2014")
_question = "Where is <expr> in the image <image> ? Give its box."
_everything = dict(
    type="ConcatDataset",
    datasets=[
        dict(**_common, name="refcoco", split="val+testA+testB", questions=_question),
        dict(**_common, name="refcoco+", split="val+testA+testB", questions=_question),
        dict(**_common, name="refcocog", split_by="umd", split="val+test", questions=_question),
    ],
)
_set = dict(dataset=_everything, evaluators=[dict(type="RECEvaluator")])

data_args = dict(train=_everything, validation=_set, test=_set)
training_args = dict(output_dir="work_dirs/refcoco_mini_refer_llava_tiny")
