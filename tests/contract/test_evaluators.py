"""What every registered evaluator must keep: 1 for perfect predictions, 0 for empty ones, whatever the order."""

import random

import numpy as np
import pytest

from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

FRAME = Frame((200, 100), (200, 200), (0.0, 50.0))
YES_NO, LETTERS = ("yes", "no"), "ABC"


def _box(index):
    """A box as the answer, which is the caption and the ten human answers as well."""
    box = [20 + index, 10, 120 + index, 90]
    answer = PlainFormatter(decimals=6).format_boxes([FRAME.normalize(box)])
    return answer, {"boxes": [box], "references": [answer], "answers": [answer] * 10}


def _caption(index):
    text = f"number {index} is a drawing of {index + 3} cats"
    return text, {"references": [text]}


def _grounded(index):
    """A phrase, its box behind it, and another."""
    boxes = {f"a cat number {index}": [[20 + index, 10, 60, 90]], f"the dog {index}": [[90, 10, 120 + index, 90]]}
    written = {
        text: PlainFormatter(decimals=6).format_boxes([FRAME.normalize(box) for box in boxes[text]]) for text in boxes
    }
    plain = " beside ".join(boxes)
    phrases = [{"text": text, "boxes": places, "types": ["animals"]} for text, places in boxes.items()]
    return " beside ".join(f"{text} {box}" for text, box in written.items()), {
        "references": [plain],
        "phrases": phrases,
    }


def _point(index):
    return PlainFormatter(decimals=6).format_points([FRAME.normalize((50, 50))]), {"boxes": [[40, 40, 60 + index, 60]]}


def _point_qa(index):
    if index % 2:
        return "The answer is yes.", {"answers": ["yes"]}
    answer, truth = _box(index)
    return answer, {"candidates": [[0, 0, 10, 10], *truth["boxes"]], "answer_index": 1}


# What an evaluator needs whose answers are none of these: index → (answer, truth).
EXAMPLES = {
    "AnswerabilityEvaluator": lambda index: (("a cup", "unanswerable")[index % 2], {"answerable": 1 - index % 2}),
    "CaptionEvaluator": _caption,
    "GroundedCaptionEvaluator": _grounded,
    "PhraseGroundingEvaluator": _grounded,
    "PointingEvaluator": _point,
    "PointQAEvaluator": _point_qa,
    "POPEEvaluator": lambda index: (YES_NO[index % 2], {"answers": [YES_NO[index % 2]]}),
    "ScienceQAEvaluator": lambda index: (LETTERS[index % 3], {"answer": LETTERS[index % 3], "choices": list("xyz")}),
}
# A Java program for each evaluation takes seconds; test_captions_pycocoevalcap.py has METEOR.
WITHOUT_JAVA = {"tokenizer": "plain", "meteor": "off"}
OPTIONS = {"CaptionEvaluator": WITHOUT_JAVA, "GroundedCaptionEvaluator": WITHOUT_JAVA}


# It needs CoreNLP; tests/evaluation/test_spice.py has it.
@pytest.fixture(params=[name for name in EVALUATORS.names() if name != "SPICEEvaluator"])
def name(request):
    return request.param


@pytest.fixture
def evaluator(name):
    one = EVALUATORS.build({"type": name, **OPTIONS.get(name, {})})
    one.formatter = PlainFormatter(decimals=6)
    return one


@pytest.fixture
def record_of(name):
    """(index, whether the prediction is perfect or empty) → the record, in one of two categories."""

    def build(index, perfect):
        answer, truth = EXAMPLES.get(name, _box)(index)
        meta = {"category": "first" if index < 3 else "second"}
        return Record(index, str(index), answer if perfect else "", answer, truth, [FRAME], meta)

    return build


def test_perfect_predictions_score_one_and_empty_ones_zero(evaluator, record_of):
    perfect = evaluator.evaluate([record_of(index, True) for index in range(6)])
    empty = evaluator.evaluate([record_of(index, False) for index in range(6)])
    for metric in evaluator.metrics:
        assert perfect.metrics[metric] == pytest.approx(evaluator.greatest.get(metric, 1), abs=1e-4)
        assert empty.metrics[metric] == 0
    assert perfect.metrics["failure_rate"] == 0
    assert empty.metrics["failure_rate"] == 1


def test_order_does_not_matter(evaluator, record_of):
    records = [record_of(index, index % 3 > 0) for index in range(12)]
    mixed = random.Random(0).sample(records, len(records))
    assert evaluator.evaluate(records).metrics == pytest.approx(evaluator.evaluate(mixed).metrics)


def test_a_table_holds_what_its_category_alone_would_score(evaluator, record_of):
    records = [record_of(index, index % 2 > 0) for index in range(6)]
    tables = evaluator.evaluate(records).tables
    for part in (records[:3], records[3:]):
        alone = evaluator.evaluate(part)
        for dimension, table in alone.tables.items():
            for category, row in table.items():
                if row["samples"] == tables[dimension][category]["samples"]:
                    assert row == pytest.approx(tables[dimension][category])


def test_a_draw_is_what_its_rows_alone_would_score(evaluator, record_of):
    rows = evaluator.evaluate([record_of(index, index % 3 > 0) for index in range(6)]).statistics
    clusters, times = np.array([0, 1, 1, 2, 3, 3]), np.array([1, 2, 0, 3])
    drawn = [row for row, cluster in zip(rows, clusters, strict=True) for _ in range(times[cluster])]
    values, expected = evaluator.drawn(rows, clusters)(times), evaluator.reduce(drawn)
    assert set(evaluator.metrics) <= set(expected)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_metrics_are_declared_and_the_number_is_signed(evaluator, record_of):
    result = evaluator.evaluate([record_of(0, True), record_of(1, False)])
    assert set(evaluator.metrics) <= set(result.metrics)
    assert "n=2" in result.signature
    assert "fail=50.0%" in result.signature


def test_statistics_can_be_stored_as_json(evaluator, record_of):
    import json

    result = evaluator.evaluate([record_of(0, True), record_of(1, False)])
    assert [json.loads(json.dumps(row))["index"] for row in result.scores] == [0, 1]
