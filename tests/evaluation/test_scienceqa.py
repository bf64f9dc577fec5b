import gzip
import json

import pytest

from mllm.dataset.scienceqa import choices_of
from mllm.errors import ConfigError, DataError
from mllm.evaluation.base import Failure
from mllm.evaluation.scienceqa import read_choice
from mllm.registry import EVALUATORS
from mllm.structures import Record


def _evaluator(**options):
    return EVALUATORS.build({"type": "ScienceQAEvaluator", **options})


def _record(pred, answer="B", index=0, choices=("x", "y", "z"), **meta):
    return Record(index, str(index), pred, truth={"answer": answer, "choices": list(choices)}, meta=meta)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("B", "B"),
        (" B\n", "B"),
        ("B. y", "B"),
        ("B\nbecause of A.", "B"),
        ("LECTURE: … The answer is C.", "C"),
        ("A. x The answer is C.", "A"),  # a letter that begins the answer goes first
        ("The answer is B. BECAUSE: so", "B"),
        ("", "empty answer"),
        ("b", "no letter in the answer"),
        ("B.", "no letter in the answer"),  # eval_science_qa.py wants a space behind the stop
        ("B) y", "no letter in the answer"),
        ("(B)", "no letter in the answer"),
        ("Because of y", "no letter in the answer"),
        ("The answer is B", "no letter in the answer"),
        ("The answer is B. No: The answer is B.", "several letters in the answer"),
        ("D", "a letter that is no choice"),
        ("D. w The answer is B.", "a letter that is no choice"),
        ("The answer is D.", "a letter that is no choice"),
    ],
)
def test_the_letter_that_is_read_among_three_choices(text, read):
    expected = read if len(read) == 1 else Failure(read)
    assert read_choice(text, "ABC") == expected


def test_what_cannot_be_read_is_wrong_or_guessed_as_the_policy_says():
    # 3000 unreadable answers to three choices: a guess hits a third, standard error sqrt(2/9/3000) = 0.0086.
    records = [_record("no idea", "B", index) for index in range(3000)]
    strict = _evaluator().evaluate(records, resamples=0)
    assert strict.metrics["accuracy"] == 0
    assert strict.metrics["failure_rate"] == 1
    guessed = _evaluator(policy="official-random").evaluate(records, resamples=0)
    assert guessed.metrics["accuracy"] == pytest.approx(1 / 3, abs=0.04)
    assert guessed.metrics == _evaluator(policy="official-random").evaluate(records[::-1], resamples=0).metrics
    assert "policy=official-random" in guessed.signature


def test_tables_by_subject_context_grade_and_topic():
    records = [
        _record("B", index=0, subject="NAT", context=["TXT", "IMG"], grade="G1-6", topic="physics"),
        _record("A", index=1, subject="NAT", context=["IMG"], grade="G7-12", topic="physics"),
        _record("B", index=2, subject="LAN", context=["NO"], grade="G7-12", topic="grammar"),
    ]
    tables = _evaluator().evaluate(records).tables
    assert list(tables) == ["subject", "context", "grade", "topic"]
    assert tables["subject"] == {"LAN": {"accuracy": 1.0, "samples": 1}, "NAT": {"accuracy": 0.5, "samples": 2}}
    # The first question counts under TXT and under IMG.
    assert tables["context"] == {
        "IMG": {"accuracy": 0.5, "samples": 2},
        "NO": {"accuracy": 1.0, "samples": 1},
        "TXT": {"accuracy": 1.0, "samples": 1},
    }


def test_a_part_of_the_split_is_refused_where_the_whole_is_expected():
    with pytest.raises(DataError, match="1 records where 4241 are expected"):
        _evaluator(expected=4241).evaluate([_record("B")])
    assert "expected=1" in _evaluator(expected=1).evaluate([_record("B")]).signature


def test_wrong_options_and_truths_are_errors():
    with pytest.raises(ConfigError, match="policy='random'; known: official-random, strict"):
        _evaluator(policy="random")
    with pytest.raises(ConfigError, match="expected='4241'"):
        _evaluator(expected="4241")
    with pytest.raises(DataError, match="truth's 'choices'; the truth has answer"):
        _evaluator().evaluate([Record(0, "0", "B", truth={"answer": "B"})])


@pytest.fixture(scope="module")
def problems(shared_data):
    """Id → (letter, choices, context) of the 4,241 test questions in LLaVA's conversion."""
    path = shared_data / "llava15_eval_outputs" / "scienceqa" / "llava_test_CQM-A.json.gz"
    found = {}
    for row in json.loads(gzip.decompress(path.read_bytes())):
        question, reply = (turn["value"] for turn in row["conversations"])
        found[row["id"]] = (reply, choices_of(question), ["IMG"] if "image" in row else [])
    return found


def _records(problems, predictions):
    return [
        _record(predictions[pid], letter, index, choices, context=context)
        for index, (pid, (letter, choices, context)) in enumerate(problems.items())
    ]


def _counts(row):
    return row["accuracy"] * row["samples"], row["samples"]


def test_llavas_scienceqa_numbers(shared_data, problems):
    path = shared_data / "llava15_eval_outputs" / "scienceqa" / "answers" / "llava-v1.5-13b_output.jsonl.gz"
    groups = json.loads(gzip.decompress(path.read_bytes()))
    predictions = {row["question_id"]: row["pred"] for rows in groups.values() for row in rows}
    result = _evaluator(expected=4241).evaluate(_records(problems, predictions), resamples=0)
    assert result.metrics["accuracy"] * 4241 == pytest.approx(3155, abs=1e-6)
    assert _counts(result.tables["context"]["IMG"]) == pytest.approx((1445, 2017), abs=1e-6)


def test_llavas_first_scienceqa_table_read_again(shared_data, problems):
    path = shared_data / "llava15_eval_outputs" / "scienceqa" / "test_sqa_llava_13b_v0.json.gz"
    outputs = json.loads(gzip.decompress(path.read_bytes()))["outputs"]
    result = _evaluator(expected=4241).evaluate(_records(problems, outputs), resamples=0)
    assert result.metrics["accuracy"] * 4241 == pytest.approx(3855, abs=1e-6)
