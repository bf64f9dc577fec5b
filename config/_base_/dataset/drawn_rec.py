# Referring expressions on drawn scenes: train, validation and test never share a picture.
_question = "<image> Give the box of <expr>."
_evaluators = [dict(type="RECEvaluator")]

data_args = dict(
    train=dict(type="DrawnREC", count=20000, split="train", turns=4),
    validation=dict(dataset=dict(type="DrawnREC", count=500, split="val", questions=_question), evaluators=_evaluators),
    test=dict(dataset=dict(type="DrawnREC", count=500, split="test", questions=_question), evaluators=_evaluators),
    multitest=dict(
        blank_pictures=dict(
            dataset=dict(
                type="BlankImages", dataset=dict(type="DrawnREC", count=500, split="test", questions=_question)
            ),
            evaluators=_evaluators,
        ),
        wrong_expression=dict(
            dataset=dict(type="DrawnREC", count=500, split="test", questions=_question, wrong_expression=True),
            evaluators=_evaluators,
        ),
    ),
)
