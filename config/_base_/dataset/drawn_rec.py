# Referring expressions on drawn scenes: train, validation and test never share a picture.
_rec = dict(type="DrawnREC", count=500, questions="<image> Give the box of <expr>.")
_evaluators = [dict(type="RECEvaluator")]

data_args = dict(
    train=dict(type="DrawnREC", count=20000, split="train", turns=4),
    validation=dict(dataset=dict(_rec, split="val"), evaluators=_evaluators),
    test=dict(dataset=dict(_rec, split="test"), evaluators=_evaluators),
    multitest=dict(
        # What is scored without seeing, and with the words for another object.
        blank_pictures=dict(dataset=dict(type="BlankImages", dataset=dict(_rec, split="test")), evaluators=_evaluators),
        wrong_expression=dict(dataset=dict(_rec, split="test", wrong_expression=True), evaluators=_evaluators),
    ),
)
