"""Bootstrap draws: the fast way of sums agrees with the general one, draws are shared and seeded."""

import random

import numpy as np
import pytest

from mllm.evaluation.base import Evaluator
from mllm.evaluation.draws import bootstrap, resample
from mllm.evaluation.pope import POPEEvaluator


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
    fast, general = (bootstrap(one, _rows(), CLUSTERS, 100, 0) for one in (_Mean(), _Reduced()))
    for name in _Mean.metrics:
        assert fast[name] == pytest.approx(general[name], abs=1e-12)


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


@pytest.mark.parametrize("base", [_Mean, POPEEvaluator])
def test_a_reduce_of_ones_own_is_drawn_also_below_an_evaluator_of_sums(base):
    class Greatest(base):
        metrics = ("greatest",)

        def reduce(self, statistics):
            return {"greatest": max(row["hit"] for row in statistics)}

    # Two images, the greatest hit in one of them: a draw without it gives 0.2.
    rows = [{"hit": 0.7}, {"hit": 0.2}]
    (draws,) = resample(Greatest(), [rows], ["a", "b"], 50, 0)
    assert set(draws["greatest"]) == {0.2, 0.7}


def test_a_draw_counts_the_rows_of_each_cluster_as_often_as_it_is_drawn():
    # Image 0 has hits 1 and 0, image 1 has 1, image 2 has 0; drawn twice, not at all and once: (2 + 0) / (4 + 1).
    rows = [{"hit": 1.0, "iou": 0.5}, {"hit": 0.0, "iou": 0.5}, {"hit": 1.0, "iou": 0.5}, {"hit": 0.0, "iou": 0.5}]
    values = _Mean().drawn(rows, np.array([0, 0, 1, 2]))(np.array([2, 0, 1]))
    assert values == {"hit": pytest.approx(0.4), "iou": pytest.approx(0.5)}


def test_nothing_is_drawn_of_one_image_or_one_resample():
    assert resample(_Mean(), [_rows(), _rows()], ["a"] * 900, 100, 0) == [{}, {}]
    assert bootstrap(_Mean(), _rows(), CLUSTERS, 1, 0) == {}
