# LLaVA over InternLM2-chat 1.8B (as Llama: mllm convert SRC DST --to hf) and CLIP-L/14 336.
model_args = dict(
    type="LLaVA",
    vision_tower="{{$MLLM_WEIGHTS:weights}}/clip-vit-large-patch14-336",
    language_model="{{$MLLM_WEIGHTS:weights}}/internlm2-chat-1_8b-llama",
    dtype="bfloat16",
)
conversation = dict(
    template="internlm2_chat",
    formatter=dict(type="PlainFormatter"),
    transforms=[dict(type="SquareCanvas", colour=[122, 116, 104]), dict(type="Resize", size=336)],
    max_length=2048,
)
generation = dict(max_new_tokens=256)
