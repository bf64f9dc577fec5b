# OpenFlamingo 9B: CLIP-L/14, MPT-7B, cross-attention before every fourth layer; checkpoint.pt of openflamingo's hub.
model_args = dict(
    type="OpenFlamingo",
    vision_tower="{{$MLLM_WEIGHTS:weights}}/clip-vit-large-patch14",
    language_model="{{$MLLM_WEIGHTS:weights}}/mpt-7b",
    weights="{{$MLLM_WEIGHTS:weights}}/OpenFlamingo-9B-vitl-mpt7b/checkpoint.pt",
    cross_attn_every_n_layers=4,
    dtype="bfloat16",
)
conversation = dict(
    template=dict(type="openflamingo", task="vqa"),
    formatter=dict(type="PlainFormatter"),
    transforms=[dict(type="SquareCanvas"), dict(type="Resize", size=224)],
    max_length=1024,
)
generation = dict(max_new_tokens=64)
