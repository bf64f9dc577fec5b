# The second part of stage 2: as drawn_instructions.py, and expressions answered with the boxes of all other objects,
# so that the words of a question, not its expression, say whether a point or boxes are wanted.
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
                count=26000,
                split="stage2b_points",
                tasks=[dict(type="DrawnPointing", turns=5, relational_share=0.8, questions=_point), _question],
            ),
            dict(
                type="DrawnConversation",
                count=5000,
                split="stage2b_others",
                tasks=[dict(type="DrawnOthers", turns=2, relational_share=0.8), _question],
            ),
            dict(
                type="DrawnConversation",
                count=2000,
                split="stage2b_boxes",
                tasks=[dict(type="DrawnDetection", turns=2, questions=_boxes), _question],
            ),
            dict(
                type="DrawnConversation",
                count=2000,
                split="stage2b_descriptions",
                tasks=[dict(type="DrawnREG", turns=3, questions=_describe), _question],
            ),
            dict(type="DrawnGroundedCaption", count=3000, split="stage2b_captions", questions=_caption),
        ],
    )
)
