"""Sums of statistics, and bootstrap draws of them: how far would a metric move with other images of the same kind?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mllm.evaluation.base import Evaluator

Rows = Sequence[dict[str, Any]]
Addends = Mapping[Hashable, float]
Sums = Counter[Hashable]
Draw = Callable[[np.ndarray], Mapping[str, float]]


def add_up(addends: Iterable[Addends]) -> Sums:
    """The sum of each number by its key; a key that is nowhere counts 0."""
    columns: dict[Hashable, list[float]] = defaultdict(list)
    for one in addends:
        for key, number in one.items():
            columns[key].append(number)
    return Counter({key: sum(column) for key, column in columns.items()})


def drawn_sums(addends: Iterable[Addends], clusters: np.ndarray) -> Callable[[np.ndarray], Sums]:
    """The sums as a function of how often each cluster is drawn; ``clusters`` (rows,) is the number of each row's."""
    columns: dict[Hashable, int] = {}
    cells, numbers, count = [], [], int(clusters.max(initial=-1)) + 1
    for cluster, one in zip(clusters.tolist(), addends, strict=True):
        for key, number in one.items():
            cells.append(columns.setdefault(key, len(columns)) * count + cluster)
            numbers.append(number)
    cell, place = np.unique(np.array(cells, dtype=np.int64), return_inverse=True)
    values = np.bincount(place, weights=numbers, minlength=len(cell))
    owner, first = cell % max(count, 1), np.flatnonzero(np.diff(cell // max(count, 1), prepend=-1))

    def sums(times: np.ndarray) -> Sums:
        drawn = np.add.reduceat(values * times[owner], first) if len(first) else values
        return Counter(dict(zip(columns, drawn.tolist(), strict=True)))

    return sums


def bootstrap(
    evaluator: Evaluator, rows: Rows, clusters: Sequence[str], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The 2.5 and 97.5 % points of each metric over ``resamples`` draws of whole clusters with replacement."""
    (draws,) = resample(evaluator, [rows], clusters, resamples, seed)
    return {name: middle(values) for name, values in draws.items()}


def resample(
    evaluator: Evaluator, versions: Sequence[Rows], clusters: Sequence[str], resamples: int, seed: int
) -> list[dict[str, list[float]]]:
    """For each version of the same records' rows the metrics' values in every draw of clusters, the draws shared.

    Empty where there is one cluster or fewer than two draws.
    """
    names: dict[str, int] = {}
    owners = np.array([names.setdefault(cluster, len(names)) for cluster in clusters], dtype=np.int64)
    draws: list[dict[str, list[float]]] = [defaultdict(list) for _ in versions]
    if len(names) < 2 or resamples < 2:
        return [{} for _ in versions]
    values_of, rng = [_drawn(evaluator, rows, owners) for rows in versions], np.random.default_rng(seed)
    for _ in range(resamples):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        for kept, values in zip(draws, [of(times) for of in values_of], strict=True):
            for name in evaluator.metrics:
                if name in values:
                    kept[name].append(values[name])
    return [dict(kept) for kept in draws]


def middle(values: Sequence[float]) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of ``values``."""
    ordered = sorted(values)
    return ordered[int(0.025 * (len(ordered) - 1))], ordered[round(0.975 * (len(ordered) - 1))]


def _drawn(evaluator: Evaluator, rows: Rows, clusters: np.ndarray) -> Draw:
    """``evaluator.drawn``, unless a class has a ``reduce`` of its own that this does not know."""
    for one in type(evaluator).__mro__:
        if "drawn" in vars(one):
            return evaluator.drawn(rows, clusters)
        if "reduce" in vars(one):
            break
    return lambda times: evaluator.reduce([rows[place] for place in np.repeat(np.arange(len(rows)), times[clusters])])
