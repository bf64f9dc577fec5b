import json

import pytest

from mllm.errors import ConfigError, DataError
from mllm.evaluation.grounded_caption import class_f1
from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

FRAME = Frame((100, 100), (100, 100))
LEFT, RIGHT = [0, 0, 20, 20], [80, 0, 100, 20]


def _box(*boxes):
    return PlainFormatter().format_boxes([FRAME.normalize(box) for box in boxes])


def _evaluator(**options):
    evaluator = EVALUATORS.build({"type": "GroundedCaptionEvaluator", "meteor": "off", "tokenizer": "plain", **options})
    evaluator.formatter = PlainFormatter()
    return evaluator


def _record(pred, index=0, phrases=None, target="", **truth):
    if phrases is not None:
        truth["phrases"] = [{"text": text, "boxes": boxes} for text, boxes in phrases.items()]
        truth.setdefault("references", ["A man rides a horse."])
    return Record(index, str(index), pred, target, truth, [FRAME])


RIDER = {"A man": [LEFT], "a horse": [RIGHT]}


def _metrics(pred, phrases=RIDER, **options):
    return _evaluator(**options).evaluate([_record(pred, phrases=phrases)], resamples=0).metrics


def test_coordinates_are_no_words_of_the_caption():
    metrics = _metrics(f"A man {_box(LEFT)} rides a horse {_box(RIGHT)}.")
    assert metrics["ROUGE-L"] == 1
    assert metrics["F1_all"] == metrics["F1_loc"] == metrics["phrase_R@1"] == 1


def test_a_word_that_the_truth_lacks_costs_f1_all_alone():
    # man right; dog only answered; horse only true. Over 3 classes precision 1/3 and recall 1/3. Named by both: man.
    metrics = _metrics(f"A man {_box(LEFT)} and a dog {_box(RIGHT)}.")
    assert metrics["F1_all"] == pytest.approx(1 / 3)
    assert metrics["F1_loc"] == 1
    assert metrics["phrase_R@1"] == 0.5


def test_a_word_in_the_wrong_place_costs_both():
    metrics = _metrics(f"A man {_box(LEFT)} on a horse {_box(LEFT)}.")
    assert metrics["F1_all"] == metrics["F1_loc"] == 0.5


def test_the_place_must_overlap_by_more_than_half():
    # 20 x 10 of 20 x 20: exactly 0.5, too little for F1, enough for R@1.
    metrics = _metrics(f"A man {_box([0, 0, 20, 10])}", {"A man": [LEFT]})
    assert metrics["F1_all"] == 0
    assert metrics["phrase_R@1"] == 1


def test_f1_is_of_the_means_over_classes():
    # The first is answered 2 times, true 1, right 1, the second 1, 2, 1: P = (1/2 + 1) / 2 = R. A class in neither
    # text is none.
    assert class_f1([(2, 1, 1), (1, 2, 1), (0, 0, 0)]) == pytest.approx(0.75)
    assert class_f1([]) == class_f1([(0, 1, 0)]) == 0


def test_a_class_without_a_box_in_the_answer_is_not_answered():
    # Precision over two classes 1/2, recall 1/2.
    assert _metrics(f"A man {_box(LEFT)} rides a horse.")["F1_all"] == pytest.approx(0.5)


def test_a_phrase_of_several_boxes_is_found_by_all_of_them():
    phrases = {"Two men": [LEFT, RIGHT]}
    assert _metrics(f"Two men {_box(LEFT, RIGHT)}", phrases)["phrase_R@1"] == 1
    assert _metrics(f"Two men {_box(LEFT)}", phrases)["phrase_R@1"] == 0
    assert _metrics(f"Two men {_box(LEFT)}", phrases)["F1_all"] == 1


def test_a_class_map_joins_words_and_leaves_others_out(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"man": "person", "guy": "person"}))
    evaluator = _evaluator(class_map=str(path))
    answer = f"A young guy {_box(LEFT)} on a thing {_box(LEFT)}."
    result = evaluator.evaluate([_record(answer, phrases=RIDER)], resamples=0)
    assert result.metrics["F1_all"] == 1
    assert "classes=classes.json" in result.signature
    path.write_text("[]")
    with pytest.raises(ConfigError, match="expected an object"):
        _evaluator(class_map=str(path))


def test_without_phrases_the_target_tells_them():
    target = f"a red circle {_box(LEFT)}, a blue square {_box(RIGHT)} and a green star {_box([40, 40, 60, 60])}."
    evaluator = _evaluator()
    records = [_record(target, target=target), _record("a red circle.", 1, target=target)]
    result = evaluator.evaluate(records, resamples=0)
    # No class of the second is marked: recall is 1/2, precision 1; phrases 3 of 6.
    assert result.metrics["F1_all"] == pytest.approx(2 / 3)
    assert result.metrics["phrase_R@1"] == 0.5
    assert result.scores[0]["tokens"].split("\n") == ["a red circle a blue square and a green star"] * 2
    assert [one[0] for one in result.scores[0]["objects"]] == ["circle", "square", "star"]


def test_a_truth_without_any_phrase_is_an_error():
    with pytest.raises(DataError, match="needs the truth's 'phrases' or a target with boxes"):
        _evaluator().evaluate([_record("a man", references=["a man"])])


def test_an_empty_answer_keeps_the_truth_in_the_sum():
    records = [_record(f"A man {_box(LEFT)}", 0, {"A man": [LEFT]}), _record("", 1, {"A man": [LEFT]})]
    result = _evaluator().evaluate(records)
    assert result.failures == {"empty answer": 1}
    assert result.metrics["phrase_R@1"] == 0.5
    # Recall 1/2, precision 1.
    assert result.metrics["F1_all"] == pytest.approx(2 / 3)
