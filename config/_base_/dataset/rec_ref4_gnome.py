# "ref4-gnome": "ref3-coco" and the region phrases of Visual Genome. Images of any of the three REC sets' validation and
# test sets are left out of the training of RefCOCO/+/g; those among Visual Genome's images are not (see its `coco_id`).
_base_ = ["rec_ref3_coco.py"]
_genome = "{{$MLLM_DATA:data}}/visual_genome"

data_args = dict(
    train=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            {{_base_.data_args.train}},
            dict(
                type="VisualGenomeREC",
                regions=f"{_genome}/region_descriptions.json",
                image_data=f"{_genome}/image_data.json",
                image_root=_genome,
                clip=True,
            ),
        ],
    ),
)
