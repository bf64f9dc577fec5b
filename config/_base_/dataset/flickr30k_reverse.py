# Flickr30k Entities the other way round: boxes in the question, the sentence about them as answer.
_root = "{{$MLLM_DATA:data}}/flickr30k_entities"
_common = dict(type="Flickr30kReverse", root=_root, image_root="{{$MLLM_DATA:data}}/flickr30k-images", answer="caption")
_evaluators = [dict(type="CaptionEvaluator")]

data_args = dict(
    train=dict(**_common, split="train"),
    validation=dict(dataset=dict(**_common, split="val"), evaluators=_evaluators),
    test=dict(dataset=dict(**_common, split="test"), evaluators=_evaluators),
)
