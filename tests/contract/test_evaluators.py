"""What every registered evaluator must keep: 1 for perfect predictions, 0 for empty ones, whatever the order."""

import random

import pytest

from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

FRAME = Frame((200, 100), (200, 200), (0.0, 50.0))


def _record(index, perfect):
    box = [20 + index, 10, 120 + index, 90]
    answer = PlainFormatter(decimals=6).format_boxes([FRAME.normalize(box)])
    return Record(
        index, str(index), answer if perfect else "", answer, {"boxes": [box], "references": [answer]}, [FRAME]
    )


@pytest.fixture(params=EVALUATORS.names())
def evaluator(request):
    one = EVALUATORS.build({"type": request.param})
    one.formatter = PlainFormatter(decimals=6)
    return one


def test_perfect_predictions_score_one_and_empty_ones_zero(evaluator):
    perfect = evaluator.evaluate([_record(index, True) for index in range(6)])
    empty = evaluator.evaluate([_record(index, False) for index in range(6)])
    for metric in evaluator.metrics:
        assert perfect.metrics[metric] == pytest.approx(1, abs=1e-4)
        assert empty.metrics[metric] == 0
    assert perfect.metrics["failure_rate"] == 0
    assert empty.metrics["failure_rate"] == 1


def test_order_does_not_matter(evaluator):
    records = [_record(index, index % 3 > 0) for index in range(12)]
    mixed = random.Random(0).sample(records, len(records))
    assert evaluator.evaluate(records).metrics == pytest.approx(evaluator.evaluate(mixed).metrics)


def test_metrics_are_declared_and_the_number_is_signed(evaluator):
    result = evaluator.evaluate([_record(0, True), _record(1, False)])
    assert set(evaluator.metrics) <= set(result.metrics)
    assert "n=2" in result.signature
    assert "fail=50.0%" in result.signature


def test_statistics_can_be_stored_as_json(evaluator):
    import json

    result = evaluator.evaluate([_record(0, True), _record(1, False)])
    assert [json.loads(json.dumps(row))["index"] for row in result.scores] == [0, 1]
