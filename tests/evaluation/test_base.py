import random

import pytest

from mllm.evaluation.base import Evaluator
from mllm.evaluation.draws import bootstrap
from mllm.registry import EVALUATORS
from mllm.structures import Record


class _Mean(Evaluator):
    metrics = ("mean",)


def test_intervals_resample_whole_images():
    # Two images, one all right and one all wrong, of 50 answers each: any draw of two images gives 0, 0.5 or 1.
    rows = [{"mean": float(i < 50)} for i in range(100)]
    clusters = ["a"] * 50 + ["b"] * 50
    low, high = bootstrap(_Mean(), rows, clusters, resamples=200, seed=0)["mean"]
    assert (low, high) == (0.0, 1.0)
    low, high = bootstrap(_Mean(), rows, [str(i) for i in range(100)], resamples=200, seed=0)["mean"]
    assert 0.35 < low < 0.45  # 0.5 -+ 1.96 * sqrt(0.25 / 100) = 0.402 .. 0.598
    assert 0.55 < high < 0.65


def test_one_image_gives_no_interval():
    assert bootstrap(_Mean(), [{"mean": 1.0}], ["a"], 200, 0) == {}


def test_exact_match_ignores_case_and_space_and_counts_empty_answers():
    records = [
        Record(0, "0", " A  Dog ", truth={"references": ["a dog"]}),
        Record(1, "1", "cat", truth={"references": ["a dog"]}),
        Record(2, "2", "  ", truth={"references": ["a dog"]}),
        Record(3, "3", "cat", truth={"references": ["a dog", "cat"]}),
    ]
    result = EVALUATORS.build({"type": "ExactMatchEvaluator"}).evaluate(records)
    assert result.metrics["exact_match"] == 0.5
    assert result.metrics["failure_rate"] == 0.25
    assert result.signature == "ExactMatchEvaluator|n=4|fail=25.0%"


def test_the_order_of_records_changes_nothing():
    records = [Record(i, str(i), "x" if i % 3 else "y", truth={"references": ["y"]}) for i in range(30)]
    evaluator = EVALUATORS.build({"type": "ExactMatchEvaluator"})
    mixed = random.Random(1).sample(records, len(records))
    assert evaluator.evaluate(records).metrics == pytest.approx(evaluator.evaluate(mixed).metrics)


class _Share(_Mean):
    dimensions = ("kind", "size")

    def parse(self, record):
        return record.pred

    def statistics(self, value, record):
        return {"mean": float(value == "right")}


def test_tables_reduce_each_category_and_count_a_record_in_all_of_its_own():
    # kind: a has 1 of 2, b 1 of 2; record 1 counts in both. Record 2 has no size, record 0 none that is known.
    records = [
        Record(0, "0", "right", meta={"kind": "a", "size": None}),
        Record(1, "1", "wrong", meta={"kind": ["a", "b"], "size": 3}),
        Record(2, "2", "right", meta={"kind": "b", "other": "x"}),
    ]
    assert _Share().evaluate(records).tables == {
        "kind": {"a": {"mean": 0.5, "samples": 2}, "b": {"mean": 0.5, "samples": 2}},
        "size": {"3": {"mean": 0.0, "samples": 1}},
    }


def test_records_without_categories_have_no_tables():
    assert _Share().evaluate([Record(0, "0", "right", meta={"category": "a"})]).tables == {}
