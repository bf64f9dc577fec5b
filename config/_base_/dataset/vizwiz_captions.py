# VizWiz-Captions: every caption trained; CIDEr on 500 validation images chooses the checkpoint.
_root = "{{$MLLM_DATA:data}}/vizwiz"
_val = dict(type="VizWizCaption", path=f"{_root}/annotations/val.json", image_root=f"{_root}/val", questions="caption")

data_args = dict(
    train=dict(
        type="VizWizCaption", path=f"{_root}/annotations/train.json", image_root=f"{_root}/train", per="caption"
    ),
    validation=dict(
        dataset=dict(type="SubsetDataset", dataset=_val, count=500), evaluators=[dict(type="CaptionEvaluator")]
    ),
    test=dict(dataset=_val, evaluators=[dict(type="CaptionEvaluator")]),
)
