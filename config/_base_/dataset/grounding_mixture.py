# What Shikra mixes: RefCOCO/+/g both ways, Flickr30k Entities both ways and LLaVA's instructions, by weight.
_base_ = ["rec_ref3_coco.py"]
_data = "{{$MLLM_DATA:data}}"
_refer = dict(root=f"{_data}/refcoco", image_root=f"{_data}/coco/train2014", split="train")
_flickr = dict(root=f"{_data}/flickr30k_entities", image_root=f"{_data}/flickr30k-images", split="train")

data_args = dict(
    train=dict(
        _delete_=True,
        type="InterleaveDataset",
        probabilities=[0.4, 0.15, 0.15, 0.1, 0.2],
        datasets=[
            {{_base_.data_args.train}},
            dict(type="RefCOCOReverse", **_refer, name="refcoco"),
            dict(type="Flickr30kEntities", **_flickr),
            dict(type="Flickr30kReverse", **_flickr, answer="queried"),
            dict(
                type="LLaVAInstruct",
                path=f"{_data}/llava/llava_instruct_150k.json",
                image_root=f"{_data}/coco/train2014",
                image_prefix="COCO_train2014_",
            ),
        ],
    ),
)
