# Captions with boxes on drawn scenes: one object, two, three or four, then the world's own pictures. Objects are named
# in any order, so that words, not ranks, find the boxes; while they share no colour and no shape, any word is enough.
_few = dict(type="DrawnGroundedCaption", shuffled=True, distinct=True)

data_args = dict(
    train=dict(
        type="ConcatDataset",
        datasets=[
            dict(_few, count=4800, split="stage1_one", objects=[1, 1]),
            dict(_few, count=8000, split="stage1_two", objects=[2, 2]),
            dict(_few, count=12000, split="stage1_four", objects=[3, 4]),
            dict(type="DrawnGroundedCaption", count=9600, split="stage1", shuffled=True, short_names=0.5),
        ],
    )
)
