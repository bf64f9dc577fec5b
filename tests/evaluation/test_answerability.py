"""VizWiz's answerability: F1 and average precision of the questions that cannot be answered."""

import pytest

from mllm.errors import ConfigError, DataError
from mllm.registry import EVALUATORS
from mllm.structures import Record


def _evaluate(*pairs, read="score", **options):
    """Pairs of prediction and ``answerable``."""
    records = [Record(n, str(n), str(said), meta={"answerable": truth}) for n, (said, truth) in enumerate(pairs)]
    return EVALUATORS.build({"type": "AnswerabilityEvaluator", "read": read}).evaluate(records, **options)


def test_average_precision_steps_through_the_least_answerable_first():
    # In order: unanswerable (P 1, R 1/2), answerable, unanswerable (P 2/3, R 1): 1/2 + 1/2 · 2/3.
    metrics = _evaluate((0.7, 1), (0.1, 0), (0.3, 1), (0.6, 0)).metrics
    assert metrics["average_precision"] == pytest.approx(5 / 6)
    # Below 0.5 stand one unanswerable and one answerable; one unanswerable is not found: 2 / (2 + 1 + 1).
    assert metrics["f1"] == 0.5


def test_equal_scores_are_one_threshold_whatever_their_order():
    # 0.2 holds one of each: P 1/2, R 1/2; then 0.9 all: P 2/4.
    pairs = [(0.2, 0), (0.2, 1), (0.9, 0), (0.9, 1)]
    assert _evaluate(*pairs).metrics["average_precision"] == 0.5
    assert _evaluate(*pairs[::-1]).metrics["average_precision"] == 0.5


def test_a_text_says_only_whether_it_is_unanswerable():
    # Two of three unanswerable ones are named, and one that could be answered; P 2/3 at R 2/3, then P 3/5 at R 1.
    pairs = [("Unanswerable.", 0), ("unanswerable", 0), ("a cup", 0), ("unanswerable", 1), ("0", 1)]
    result = _evaluate(*pairs, read="text")
    assert result.metrics["f1"] == pytest.approx(2 / 3)
    assert result.metrics["average_precision"] == pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 3 / 5)
    assert "|score=text,0/1|" in result.signature


def test_what_cannot_be_read_is_wrong_at_every_threshold():
    # The unread answerable one comes first (P 0), the found one second (P 1/2, R 1/2); the unread other is not reached.
    result = _evaluate((0.1, 0), ("no idea", 0), ("1.2", 1))
    assert result.metrics["average_precision"] == 0.25
    assert result.metrics["f1"] == 0.5  # one hit, one false, one missed
    assert result.failures == {"no number": 1, "no number from 0 to 1": 1}


def test_none_that_cannot_be_answered_gives_zero():
    assert _evaluate((0.1, 1), (0.9, 1)).metrics == {"f1": 0, "average_precision": 0, "failure_rate": 0}


def test_truth_and_options_are_checked():
    with pytest.raises(DataError, match=r"needs 'answerable' \(0 or 1\), got None"):
        _evaluate((0.1, None))
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        _evaluate(read="scores")
