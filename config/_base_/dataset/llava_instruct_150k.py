# LLaVA-Instruct-150k on COCO train2014 images.
_root = "{{$MLLM_DATA:data}}"

data_args = dict(
    train=dict(
        type="LLaVAInstruct",
        path=f"{_root}/llava/llava_instruct_150k.json",
        image_root=f"{_root}/coco/train2014",
        image_prefix="COCO_train2014_",
    ),
)
