# Phi-3.5-mini behind a projected CLIP vector, the language model in 4 bits with LoRA: 111,680,512 parameters trained.
model_args = dict(
    type="PhiCLIP",
    vision_tower="{{$MLLM_WEIGHTS:weights}}/clip-vit-base-patch32",
    language_model="{{$MLLM_WEIGHTS:weights}}/Phi-3.5-mini-instruct",
    features="pooled",
    dtype="bfloat16",
)
tune = dict(quantize="nf4", lora=dict(r=64, alpha=16, dropout=0.1, modules_to_save=["projector"]))
_system = "You are a helpful assistant good at answering questions based on the given context."
conversation = dict(
    template=dict(type="phi3", system=_system), transforms=[dict(type="Resize", size=224)], max_length=1024
)
generation = dict(max_new_tokens=128)
