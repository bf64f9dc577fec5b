# Instructions on drawn scenes for pretraining: captions with boxes, points, boxes by category, descriptions, questions.
# No referring expression is answered with its box here: that is what REC fine-tuning teaches.
_question = dict(type="DrawnVQA", questions=["<image> <question>"])
_caption = dict(
    type="DrawnGroundedCaption",
    shuffled=True,
    questions=["<image> Describe the picture and give the box of each object."],
)
_point = dict(
    type="DrawnPointing", turns=4, questions=["<image> Point at <expr>.", "<image> Where is the middle of <expr>?"]
)
_boxes = ["<image> Give the box of each <category>.", "<image> Find all boxes of a <category>."]
_describe = ["<image> Describe <objs>.", "<image> What is at <objs>?"]

data_args = dict(
    train=dict(
        type="ConcatDataset",
        datasets=[
            dict(_caption, count=14000, split="stage2_few", objects=[3, 5], distinct=True, short_names=0.3),
            dict(_caption, count=16000, split="stage2_captions", short_names=0.7),
            dict(_point, count=16000, split="stage2_named_points", answer="<expr> <points>"),
            dict(_point, count=40000, split="stage2_points"),
            dict(
                type="DrawnConversation",
                count=6000,
                split="stage2_others",
                tasks=[dict(type="DrawnOthers", turns=2), _question],
            ),
            dict(
                type="DrawnConversation",
                count=7000,
                split="stage2_boxes",
                tasks=[dict(type="DrawnDetection", turns=2, questions=_boxes), _question],
            ),
            dict(
                type="DrawnConversation",
                count=6000,
                split="stage2_descriptions",
                tasks=[dict(type="DrawnREG", turns=3, questions=_describe), _question],
            ),
        ],
    )
)
