# LLaVA v1.5 7B in Hugging Face's layout (llava-hf/llava-1.5-7b-hf): 336 px, 576 image tokens.
model_args = dict(
    type="LLaVA",
    pretrained="{{$MLLM_WEIGHTS:weights}}/llava-1.5-7b-hf",
    dtype="bfloat16",
)
conversation = dict(
    template="vicuna_v1.1",
    formatter=dict(type="PlainFormatter"),
    transforms=[dict(type="SquareCanvas"), dict(type="Resize", size=336)],
    max_length=2048,
)
generation = dict(max_new_tokens=64)
