# The small LLaVA that ships (2.3 M parameters, 96 px, 36 image tokens); coordinates are tokens, 101 to a side.
model_args = dict(type="LLaVA", pretrained="asset:toy_llava")
tune = dict(freeze=[])
conversation = dict(
    template=dict(type="vicuna_v1.1", system=""),
    formatter=dict(type="BinTokenFormatter", bins=101),
    transforms=[dict(type="SquareCanvas"), dict(type="Resize", size=96)],
    max_length=512,
)
generation = dict(max_new_tokens=60)
