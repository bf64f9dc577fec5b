# Instructions on drawn scenes for pretraining: points, boxes by category, descriptions, questions, grounded captions.
# No referring expression is ever answered with a box here: that is what REC fine-tuning teaches.
_question = dict(type="DrawnVQA", questions=["<image> <question>"])
_point = ["<image> Point at <expr>.", "<image> Where is the middle of <expr>?"]
_boxes = ["<image> Give the box of each <category>.", "<image> Find all boxes of a <category>."]
_describe = ["<image> Describe <objs>.", "<image> What is at <objs>?"]
_caption = ["<image> Describe the picture and give the box of each object."]

data_args = dict(
    train=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                type="DrawnConversation",
                count=60000,
                split="stage2_points",
                tasks=[dict(type="DrawnPointing", turns=4, questions=_point), _question],
            ),
            dict(
                type="DrawnConversation",
                count=16000,
                split="stage2_boxes",
                tasks=[dict(type="DrawnDetection", turns=2, questions=_boxes), _question],
            ),
            dict(
                type="DrawnConversation",
                count=12000,
                split="stage2_descriptions",
                tasks=[dict(type="DrawnREG", turns=3, questions=_describe), _question],
            ),
            dict(type="DrawnGroundedCaption", count=12000, split="stage2_captions", questions=_caption),
        ],
    )
)
