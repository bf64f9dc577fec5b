# Flickr30k Entities: sentence with a box behind each phrase; phrases that the model marks are scored, and the sentence.
_root = "{{$MLLM_DATA:data}}/flickr30k_entities"
_common = dict(type="Flickr30kEntities", root=_root, image_root="{{$MLLM_DATA:data}}/flickr30k-images")
_question = "<image> Describe the image and point out its objects."
_evaluators = [dict(type="GroundedCaptionEvaluator")]

data_args = dict(
    train=dict(**_common, split="train"),
    validation=dict(dataset=dict(**_common, split="val", per="image", questions=_question), evaluators=_evaluators),
    test=dict(dataset=dict(**_common, split="test", per="image", questions=_question), evaluators=_evaluators),
)
