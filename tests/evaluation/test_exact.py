import pytest

from mllm.errors import ConfigError, DataError
from mllm.registry import EVALUATORS
from mllm.structures import Record


def _score(pred, reference, **options):
    record = Record(0, "0", pred, truth={"references": [reference]})
    return EVALUATORS.build({"type": "ExactMatchEvaluator", **options}).evaluate([record]).metrics["exact_match"]


@pytest.mark.parametrize(
    ("pred", "reference", "exact", "case", "squad"),
    [
        ("a dog ", "a dog", 1, 1, 1),
        ("A  Dog", "a dog", 0, 1, 1),
        ("The dog!", "dog", 0, 0, 1),
        ("theatre", "atre", 0, 0, 0),
        ("", "", 0, 0, 0),
        ("the", "", 0, 0, 1),  # the form of an answer may be empty, the answer may not
    ],
)
def test_what_each_match_overlooks(pred, reference, exact, case, squad):
    assert _score(pred, reference, match="exact") == exact
    assert _score(pred, reference) == case
    assert _score(pred, reference, match="squad") == squad


def test_answers_of_questions_are_references_too_and_tables_follow_the_meta():
    truth = {"question": "?", "answers": ["yes"]}
    records = [
        Record(0, "0", "Yes", truth=truth, meta={"category": "LR", "question_type": "presence"}),
        Record(1, "1", "No", truth=truth, meta={"category": "LR"}),
    ]
    result = EVALUATORS.build({"type": "ExactMatchEvaluator", "match": "squad"}).evaluate(records)
    assert result.tables == {
        "category": {"LR": {"exact_match": 0.5, "samples": 2}},
        "question_type": {"presence": {"exact_match": 1.0, "samples": 1}},
    }
    assert result.signature == "ExactMatchEvaluator|match=squad|n=2|fail=0.0%"


def test_wrong_options_and_truths_are_errors():
    with pytest.raises(ConfigError, match="ExactMatchEvaluator: match='cases'; did you mean 'case'"):
        _score("a", "a", match="cases")
    with pytest.raises(DataError, match="'references' or 'answers'; the truth has nothing"):
        EVALUATORS.build({"type": "ExactMatchEvaluator"}).evaluate([Record(0, "0", "a")])
