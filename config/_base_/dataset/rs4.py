# RS4 (NWPU, RSICD, LR, DOTA) as tools/ and `mllm prepare rs4` lay it out: sets/data_{train,val,test}.json, imagenes/.
_root = "{{$MLLM_DATA:data}}/rs4"
_common = dict(type="RSInstructions", image_root=f"{_root}/imagenes")
_vqa = dict(subsets=["LR", "DOTA"], turns="each")
_captions = dict(subsets=["NWPU", "RSICD"], turns="once")

data_args = dict(
    train=dict(**_common, path=f"{_root}/sets/data_train.json"),
    validation=dict(
        dataset=dict(**_common, **_vqa, path=f"{_root}/sets/data_val.json"), evaluators=[dict(type="RSVQAEvaluator")]
    ),
    test=dict(
        dataset=dict(**_common, **_vqa, path=f"{_root}/sets/data_test.json"), evaluators=[dict(type="RSVQAEvaluator")]
    ),
    multitest=dict(
        captions=dict(
            dataset=dict(**_common, **_captions, path=f"{_root}/sets/data_test.json"),
            evaluators=[dict(type="CaptionEvaluator")],
        )
    ),
)
