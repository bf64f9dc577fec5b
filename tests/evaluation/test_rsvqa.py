import pytest

from mllm.errors import ConfigError, DataError
from mllm.registry import EVALUATORS
from mllm.structures import Record


def _evaluator(**options):
    return EVALUATORS.build({"type": "RSVQAEvaluator", **options})


def _record(pred, answer, index=0, **meta):
    return Record(index, str(index), pred, truth={"answers": [answer]}, meta=meta)


@pytest.mark.parametrize(
    ("pred", "answer", "exact", "ranges"),
    [
        ("Yes.", "yes", 1, 1),
        ("7", "7", 1, 1),
        ("0", "0", 1, 1),
        ("1", "0", 0, 0),  # nothing at all is a class of its own
        ("1", "10", 0, 1),
        ("10", "11", 0, 0),
        ("11", "100", 0, 1),
        ("100", "101", 0, 0),
        ("101", "1000", 0, 1),
        ("1000", "1001", 0, 0),
        ("1001", "17139", 0, 1),
        ("Between 11 and 100", "57", 0, 1),
        ("more than 1000", "17139", 0, 1),
        ("1" * 5000, "17139", 0, 1),
        ("about 7", "7", 0, 0),
        ("rural", "urban", 0, 0),
    ],
)
def test_counts_exactly_or_in_the_papers_five_classes(pred, answer, exact, ranges):
    assert _evaluator().evaluate([_record(pred, answer)]).metrics["accuracy"] == exact
    assert _evaluator(counts="ranges").evaluate([_record(pred, answer)]).metrics["accuracy"] == ranges


@pytest.mark.parametrize(
    ("pred", "answer", "exact", "ranges"),
    [
        ("0m2", "0m2", 1, 1),
        ("0m2", "1m2", 0, 0),
        ("1m2", "10m2", 0, 1),
        ("10m2", "11m2", 0, 0),
        ("between 10m2 and 100m2", "57m2", 0, 1),  # as the authors' code names it
        ("Between 11m2 and 100m2.", "57m2", 0, 1),  # as the paper does
        ("between 0m2 and 10m2", "0m2", 0, 0),
        ("400 m²", "101m2", 0, 1),
        ("more than 1000m2", "10631m2", 0, 1),
        ("1000m2", "1001m2", 0, 0),
        ("57", "57m2", 0, 0),  # a count is no area
        ("7", "8", 0, 0),  # counts stay exact
    ],
)
def test_areas_exactly_or_in_the_classes_of_high_resolution(pred, answer, exact, ranges):
    assert _evaluator().evaluate([_record(pred, answer)]).metrics["accuracy"] == exact
    result = _evaluator(areas="ranges").evaluate([_record(pred, answer)])
    assert result.metrics["accuracy"] == ranges
    assert "|counts=exact|areas=ranges|" in result.signature


def test_average_accuracy_weighs_types_alike():
    # presence 3 of 3, count 0 of 1: overall 3/4, average (1 + 0) / 2.
    records = [_record("yes", "yes", index, category="presence") for index in range(3)]
    result = _evaluator().evaluate([*records, _record("4", "5", 3, category="count")])
    assert (result.metrics["accuracy"], result.metrics["average_accuracy"]) == (0.75, 0.5)
    assert result.tables["question_type"]["presence"] == {"accuracy": 1.0, "average_accuracy": 1.0, "samples": 3}
    assert list(result.tables) == ["question_type"]


def test_rs4_is_broken_down_by_sub_dataset_and_its_question_types():
    # LR count 1 of 2, DOTA count 1 of 1, LR presence 0 of 1: overall 2/4, average (1/2 + 1 + 0) / 3.
    records = [
        _record("3", "3", 0, category="LR", question_type="count"),
        _record("4", "3", 1, category="LR", question_type="count"),
        _record("548", "548", 2, category="DOTA", question_type="count"),
        _record("no", "yes", 3, category="LR", question_type="presence"),
    ]
    result = _evaluator().evaluate(records)
    assert result.metrics["accuracy"] == 0.5
    assert result.metrics["average_accuracy"] == pytest.approx(0.5)
    assert {name: row["accuracy"] for name, row in result.tables["question_type"].items()} == {
        "DOTA count": 1.0,
        "LR count": 0.5,
        "LR presence": 0.0,
    }
    assert result.tables["subset"]["LR"]["accuracy"] == pytest.approx(1 / 3)
    assert result.tables["subset"]["LR"]["average_accuracy"] == pytest.approx(1 / 4)


def test_captions_among_the_questions_are_an_error():
    with pytest.raises(DataError, match="needs texts in the truth's 'answers'; the truth has references"):
        _evaluator().evaluate([Record(0, "0", "a town", truth={"references": ["a town"]})])
    with pytest.raises(ConfigError, match="counts='range'; did you mean 'ranges'"):
        _evaluator(counts="range")
