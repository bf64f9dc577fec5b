# BLIP captioning, base (Salesforce/blip-image-captioning-base): 384 px, squashed to a square as BLIP was trained.
model_args = dict(type="BLIP", pretrained="{{$MLLM_WEIGHTS:weights}}/blip-image-captioning-base")
conversation = dict(template="blip", transforms=[dict(type="Resize", size=384)], max_length=64)
generation = dict(max_new_tokens=50, num_beams=3)
tune = dict(freeze=[])
