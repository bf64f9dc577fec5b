import pytest

from mllm.errors import ConfigError, DataError
from mllm.registry import EVALUATORS
from mllm.structures import Record


def _evaluator(**options):
    return EVALUATORS.build({"type": "GQAEvaluator", **options})


def _record(pred, answer, index=0, **meta):
    return Record(index, str(index), pred, truth={"answers": [answer]}, meta=meta)


@pytest.mark.parametrize(
    ("pred", "answer", "kept", "dropped"),
    [
        ("Yes.", "yes", 1, 1),
        (" Traffic\n light ", "traffic light", 1, 1),
        ("a car", "car", 0, 1),  # the article policy decides
        ("analyst", "lyst", 0, 0),  # articles are whole words
        ("car, red", "car red", 0, 0),  # no other punctuation is touched
        ("no . .", "no", 0, 0),  # stops at the very end alone
    ],
)
def test_lower_case_and_final_stop_aside_the_whole_answer_counts(pred, answer, kept, dropped):
    assert _evaluator().evaluate([_record(pred, answer)]).metrics["accuracy"] == kept
    assert _evaluator(articles="drop").evaluate([_record(pred, answer)]).metrics["accuracy"] == dropped


def test_binary_and_open_follow_the_structural_type_else_the_answer():
    records = [
        _record("left", "left", 0, category="choose"),  # choose is binary in GQA's eval.py though no yes or no
        _record("red", "blue", 1, category="query"),
        _record("no", "No", 2),
        _record("dog", "dog", 3),
    ]
    result = _evaluator().evaluate(records)
    assert result.metrics["accuracy"] == 0.75
    assert result.tables["answer"] == {
        "binary": {"accuracy": 1.0, "samples": 2},
        "open": {"accuracy": 0.5, "samples": 2},
    }
    assert result.tables["category"]["query"] == {"accuracy": 0.0, "samples": 1}


def test_empty_answers_are_failures_and_the_policy_is_signed():
    result = _evaluator(articles="drop").evaluate([_record("", "yes")])
    assert result.failures == {"empty answer": 1}
    assert result.signature == "gqa|match=lower,no-final-stop|articles=drop|n=1|fail=100.0%"


def test_wrong_options_and_truths_are_errors():
    with pytest.raises(ConfigError, match="articles='remove'; known: drop, keep"):
        _evaluator(articles="remove")
    with pytest.raises(DataError, match="GQAEvaluator needs texts"):
        _evaluator().evaluate([Record(0, "0", "yes")])
