# LLaVA's pretraining pairs (LCS-558K): picture -> caption, projector alone.
_root = "{{$MLLM_DATA:data}}/llava"

data_args = dict(
    train=dict(type="LLaVAInstruct", path=f"{_root}/blip_laion_cc_sbu_558k.json", image_root=f"{_root}/pretrain_images")
)
