import gzip
import json

import pytest

from mllm.errors import DataError
from mllm.registry import EVALUATORS
from mllm.structures import Record


def _evaluator():
    return EVALUATORS.build({"type": "POPEEvaluator"})


def _record(pred, label, index=0, **meta):
    return Record(index, str(index), pred, truth={"answers": [label]}, meta=meta)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Yes", "yes"),
        ("No", "no"),
        ("no, there is none", "no"),  # commas are removed before the words are split
        ("There is not a dog.", "no"),
        ("Yes. There is no doubt", "yes"),  # the first sentence counts
        ("There is a dog. No cat", "yes"),
        ("NO", "yes"),  # the three words are No, no, not
        ("Nothing", "yes"),
        ("maybe", "yes"),
        ("", "empty answer"),
    ],
)
def test_what_is_read_as_no(text, read):
    value = _evaluator().parse(_record(text, "yes"))
    assert getattr(value, "reason", value) == read


def test_scores_of_one_subset_by_hand():
    # Truth yes yes yes no no, answers yes yes no yes no: TP 2, FN 1, FP 1, TN 1.
    answers = [("Yes", "yes"), ("Yes", "yes"), ("No", "yes"), ("Yes", "no"), ("No", "no")]
    metrics = _evaluator().evaluate([_record(*pair, index) for index, pair in enumerate(answers)]).metrics
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["yes_ratio"] == pytest.approx(3 / 5)


def test_precision_recall_and_f1_are_told_apart():
    # TP 1, FP 2, FN 0, TN 1: precision 1/3, recall 1, F1 2/3 / (4/3) = 1/2.
    answers = [("Yes", "yes"), ("Yes", "no"), ("Yes", "no"), ("No", "no")]
    metrics = _evaluator().evaluate([_record(*pair, index) for index, pair in enumerate(answers)]).metrics
    assert (metrics["precision"], metrics["recall"]) == pytest.approx((1 / 3, 1))
    assert (metrics["f1"], metrics["accuracy"]) == pytest.approx((0.5, 0.5))


def test_an_empty_answer_is_wrong_for_either_truth():
    # Yes yes, "" yes, "" no: TP 1, FN 1, FP 1.
    answers = [("Yes", "yes"), ("", "yes"), ("", "no")]
    metrics = _evaluator().evaluate([_record(*pair, index) for index, pair in enumerate(answers)]).metrics
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == pytest.approx((0.5, 0.5, 0.5))
    assert (metrics["accuracy"], metrics["yes_ratio"]) == pytest.approx((1 / 3, 1 / 3))


def test_several_subsets_are_averaged_and_stand_in_the_table():
    # random: both right, F1 1. popular: TP 1, FP 1, FN 0 in three answers; F1 2 x 0.5 x 1 / 1.5 = 2/3.
    records = [
        _record("Yes", "yes", 0, category="random"),
        _record("No", "no", 1, category="random"),
        _record("Yes", "yes", 2, category="popular"),
        _record("Yes", "no", 3, category="popular"),
        _record("No", "no", 4, category="popular"),
    ]
    result = _evaluator().evaluate(records)
    table = result.tables["category"]
    assert table["random"]["f1"] == 1
    assert table["popular"]["f1"] == pytest.approx(2 / 3)
    assert table["popular"]["samples"] == 3
    assert result.metrics["f1"] == pytest.approx(5 / 6)
    assert result.metrics["accuracy"] == pytest.approx((1 + 2 / 3) / 2)


def test_never_yes_divides_by_nothing():
    metrics = _evaluator().evaluate([_record("No", "no")]).metrics
    assert (metrics["f1"], metrics["precision"], metrics["recall"], metrics["accuracy"]) == (0, 0, 0, 1)
    assert _evaluator().evaluate([]).metrics["f1"] == 0


def test_an_ungenerated_record_needs_no_truth_and_a_wrong_label_is_an_error():
    result = _evaluator().evaluate([Record(0, "0", "", failure="val[0]: image is missing")])
    assert result.metrics["accuracy"] == 0
    with pytest.raises(DataError, match="record 0: POPE's answers are 'yes' and 'no', truth has 'maybe'"):
        _evaluator().evaluate([_record("Yes", "maybe")])


def _lines(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


# Counts and F1 of the shipped answers: PROVENANCE.md of the folder.
@pytest.mark.parametrize(("subset", "count", "f1"), [("random", 2910, 0.871360), ("popular", 3000, 0.862459)])
def test_llavas_pope_numbers(shared_data, subset, count, f1):
    folder = shared_data / "llava15_eval_outputs" / "pope"
    categories = {row["question_id"]: row["category"] for row in _lines(folder / "llava_pope_test.jsonl.gz")}
    answers = _lines(folder / "answers" / "llava-v1.5-13b.jsonl.gz")
    answers = [row for row in answers if categories[row["question_id"]] == subset]
    labels = _lines(folder / "coco" / f"coco_pope_{subset}.json.gz")
    records = [
        _record(answer["text"], row["label"], index, category=subset)
        for index, (answer, row) in enumerate(zip(answers, labels, strict=True))
    ]
    result = _evaluator().evaluate(records, resamples=0)
    assert len(records) == count
    assert result.metrics["f1"] == pytest.approx(f1, abs=5e-7)
    assert result.metrics["failure_rate"] == 0
