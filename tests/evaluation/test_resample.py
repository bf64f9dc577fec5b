"""Bootstrap draws: the fast way of means agrees with the general one, draws are shared and seeded."""

import random

import pytest

from mllm.evaluation.base import Evaluator, bootstrap, resample


class _Mean(Evaluator):
    metrics = ("hit", "iou")


class _Reduced(_Mean):
    def reduce(self, statistics):
        return super().reduce(statistics)


def _rows(seed=0, count=900):
    rng = random.Random(seed)
    return [{"hit": float(rng.random() < 0.3), "iou": rng.random(), "kind": "x"} for _ in range(count)]


CLUSTERS = [str(number // 3) for number in range(900)]


def test_means_are_drawn_alike_by_sums_of_clusters_and_by_reduce():
    fast, general = (bootstrap(one, _rows(), CLUSTERS, 1000, 0) for one in (_Mean(), _Reduced()))
    for name in _Mean.metrics:
        # The ends of intervals of about 0.06 and 0.04, each off by its own sampling error.
        assert fast[name] == pytest.approx(general[name], abs=0.006)


@pytest.mark.parametrize("evaluator", [_Mean(), _Reduced()])
def test_draws_are_seeded_and_shared(evaluator):
    first, second = resample(evaluator, [_rows(), _rows()], CLUSTERS, 20, 3)
    assert first == second
    assert resample(evaluator, [_rows()], CLUSTERS, 20, 3) == [first]
    assert resample(evaluator, [_rows()], CLUSTERS, 20, 4) != [first]
    assert len(first["hit"]) == 20


@pytest.mark.parametrize("evaluator", [_Mean(), _Reduced()])
def test_clusters_of_different_sizes_weigh_by_their_records(evaluator):
    # One image of 9 right answers, one of 1 wrong: two of the first 1, one of each 9/10, two of the second 0.
    rows = [{"hit": 1.0, "iou": 0.0}] * 9 + [{"hit": 0.0, "iou": 0.0}]
    (draws,) = resample(evaluator, [rows], ["a"] * 9 + ["b"], 200, 0)
    assert {round(value, 9) for value in draws["hit"]} == {0.0, 0.9, 1.0}


def test_nothing_is_drawn_of_one_image_or_one_resample():
    assert resample(_Mean(), [_rows(), _rows()], ["a"] * 900, 100, 0) == [{}, {}]
    assert bootstrap(_Mean(), _rows(), CLUSTERS, 1, 0) == {}
