# "ref4-gnome": "ref3-coco" and the region phrases of Visual Genome. Images of any of the three REC sets' validation and
# test sets are left out of the training of RefCOCO/+/g; those among Visual Genome's images are not (see its `coco_id`).
_root = "{{$MLLM_DATA:data}}/refcoco"
_genome = "{{$MLLM_DATA:data}}/visual_genome"
_images = "{{$MLLM_DATA:data}}/coco/train2014"
_question = "Where is <expr> in the image <image> ? Give its box."
_evaluators = [dict(type="RECEvaluator")]
_common = dict(type="RefCOCO", root=_root, image_root=_images)
_test_sets = ["refcoco/unc/val+testA+testB", "refcoco+/unc/val+testA+testB", "refcocog/umd/val+test"]

data_args = dict(
    train=dict(
        type="ConcatDataset",
        datasets=[
            dict(**_common, name="refcoco", split="train", held_out=_test_sets),
            dict(**_common, name="refcoco+", split="train", held_out=_test_sets),
            dict(**_common, name="refcocog", split_by="umd", split="train", held_out=_test_sets),
            dict(
                type="VisualGenomeREC",
                regions=f"{_genome}/region_descriptions.json",
                image_data=f"{_genome}/image_data.json",
                image_root=_genome,
                clip=True,
            ),
        ],
    ),
    validation=dict(dataset=dict(**_common, name="refcoco", split="val", questions=_question), evaluators=_evaluators),
    test=dict(dataset=dict(**_common, name="refcoco", split="testA", questions=_question), evaluators=_evaluators),
    multitest={
        f"{name}_{split}": dict(
            dataset=dict(**_common, name=name, split_by=by, split=split, questions=_question), evaluators=_evaluators
        )
        for name, by, splits in (
            ("refcoco", "unc", ("val", "testA", "testB")),
            ("refcoco+", "unc", ("val", "testA", "testB")),
            ("refcocog", "umd", ("val", "test")),
        )
        for split in splits
    },
)
