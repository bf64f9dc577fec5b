# BLIP captioning, large, with LoRA on query and value of the text decoder: 614,400 parameters are trained.
_base_ = ["blip_base.py"]
model_args = dict(pretrained="{{$MLLM_WEIGHTS:weights}}/blip-image-captioning-large")
tune = dict(lora=dict(r=8, alpha=32, dropout=0.1, targets=["query", "value"]))
