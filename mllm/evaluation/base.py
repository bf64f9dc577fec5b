"""The evaluator's contract: parse a record, give its statistics, reduce many of them to the declared metrics."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mllm.structures import Record

Table = dict[str, dict[str, float]]
Rows = Sequence[dict[str, Any]]
RESAMPLES = 200


@dataclass(frozen=True)
class Failure:
    """Why a prediction could not be read; it scores 0 and is counted by its reason."""

    reason: str


@dataclass
class Evaluation:
    """The outcome over a set of records: metrics, their intervals, each record's score row, failures by reason.

    ``tables`` holds a table for each dimension that the evaluator groups by: category → metrics and ``samples``.
    ``statistics`` and ``clusters`` (the image of each record) are what intervals and comparisons are drawn from.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    scores: list[dict[str, Any]]
    failures: Counter[str] = field(default_factory=Counter)
    signature: str = ""
    tables: dict[str, Table] = field(default_factory=dict)
    statistics: list[dict[str, Any]] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Signature, metrics, intervals, failures by reason and tables: all but what belongs to one record."""
        return {
            "signature": self.signature,
            "metrics": dict(self.metrics),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "failures": dict(self.failures),
            "tables": self.tables,
        }


class Evaluator:
    """Base of what EVALUATORS holds. ``metrics`` are declared; the first selects the best checkpoint.

    ``dimensions`` are the fields of ``record.meta`` that scores are broken down by, a table each.
    ``greatest`` holds the best value of a metric where it is not 1.
    ``formatter`` is set by the run (what the model's text speaks); an evaluator of plain text ignores it.
    """

    metrics: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[tuple[str, ...]] = ("category",)
    greatest: ClassVar[dict[str, float]] = {}
    formatter: Any = None

    def prepare(self, records: Sequence[Record]) -> None:
        """Called once before the records are parsed; what is cheaper done for all of them at once is done here."""

    def parse(self, record: Record) -> Any:
        """The value in ``record.pred``, or a ``Failure`` with its reason."""
        raise NotImplementedError

    def statistics(self, value: Any, record: Record) -> dict[str, Any]:
        """Numbers of one record, sufficient for every metric; ``value`` may be a ``Failure``, which scores 0.

        Where ``reduce`` needs to know a record's group, its name may stand among them.
        """
        raise NotImplementedError

    def reduce(self, statistics: Sequence[dict[str, Any]]) -> dict[str, float]:
        """The metrics over ``statistics``: their means. Corpus metrics override this."""
        return {name: sum(row[name] for row in statistics) / max(len(statistics), 1) for name in self.metrics}

    def categories(self, record: Record) -> Mapping[str, str | Sequence[str]]:
        """The record's category in each dimension, a list where it counts in several; by default from its ``meta``."""
        return {name: record.meta[name] for name in self.dimensions if record.meta.get(name) is not None}

    def signature(self) -> str:
        """What one must know to compare a number: protocol and options."""
        return type(self).__name__

    def evaluate(self, records: Sequence[Record], *, resamples: int = RESAMPLES, seed: int = 0) -> Evaluation:
        """Score all records; intervals are 95 % bootstrap intervals, resampled by image (``meta["image_id"]``)."""
        self.prepare(records)
        scores, rows, failures = [], [], Counter()
        for record in records:
            value = Failure(record.failure) if record.failure else self.parse(record)
            row = self.statistics(value, record)
            if isinstance(value, Failure):
                failures["not generated" if record.failure else value.reason] += 1
                shown: dict[str, Any] = {"failure": value.reason}
            else:
                shown = {"value": value}
            rows.append(row)
            scores.append({"index": record.index, "id": record.id, **shown, **row})
        metrics = {**self.reduce(rows), "failure_rate": sum(failures.values()) / max(len(rows), 1)}
        share = metrics["failure_rate"]
        signature = f"{self.signature()}|n={len(rows)}|fail={100 * share:.1f}%"
        clusters = [_cluster(record) for record in records]
        intervals = bootstrap(self, rows, clusters, resamples, seed)
        tables = category_tables(self, rows, records)
        return Evaluation(metrics, intervals, scores, failures, signature, tables, rows, clusters)


def category_tables(
    evaluator: Evaluator, rows: Sequence[dict[str, Any]], records: Sequence[Record]
) -> dict[str, Table]:
    """What ``evaluator.reduce`` gives over the rows of each category, by dimension, with their number ``samples``."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row, record in zip(rows, records, strict=True):
        for dimension, names in evaluator.categories(record).items():
            for name in names if isinstance(names, (list, tuple)) else [names]:
                groups.setdefault(dimension, {}).setdefault(str(name), []).append(row)
    return {
        dimension: {
            name: {**evaluator.reduce(members), "samples": len(members)} for name, members in sorted(found.items())
        }
        for dimension, found in groups.items()
    }


def bootstrap(
    evaluator: Evaluator, rows: Rows, clusters: Sequence[str], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The 2.5 and 97.5 % points of each metric over ``resamples`` draws of whole clusters with replacement."""
    (draws,) = resample(evaluator, [rows], clusters, resamples, seed)
    return {name: middle(draws[name]) for name in evaluator.metrics if name in draws}


def resample(
    evaluator: Evaluator, versions: Sequence[Rows], clusters: Sequence[str], resamples: int, seed: int
) -> list[dict[str, list[float]]]:
    """For each version of the same records' rows the metrics' values in every draw of clusters, the draws shared.

    Empty where there is one cluster or fewer than two draws. Means are drawn as sums of clusters.
    """
    groups: dict[str, list[int]] = {}
    for position, cluster in enumerate(clusters):
        groups.setdefault(cluster, []).append(position)
    if len(groups) < 2 or resamples < 2:
        return [{} for _ in versions]
    if type(evaluator).reduce is Evaluator.reduce:
        names, members = evaluator.metrics, list(groups.values())
        sums = [_sums(rows, names, members) for rows in versions]
        drawn = np.stack(list(_mean_draws(sums, [*map(len, members)], resamples, seed)))
        return [dict(zip(names, drawn[:, version].T.tolist(), strict=True)) for version in range(len(versions))]
    members, rng = list(groups.values()), random.Random(seed)
    draws: list[dict[str, list[float]]] = [{name: [] for name in evaluator.metrics} for _ in versions]
    for _ in range(resamples):
        chosen = [position for group in rng.choices(members, k=len(members)) for position in group]
        for kept, rows in zip(draws, versions, strict=True):
            values = evaluator.reduce([rows[position] for position in chosen])
            for name in evaluator.metrics:
                kept[name].append(values[name])
    return draws


def middle(values: Sequence[float]) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of ``values``."""
    ordered = sorted(values)
    return ordered[int(0.025 * (len(ordered) - 1))], ordered[round(0.975 * (len(ordered) - 1))]


def _sums(rows: Rows, names: Sequence[str], members: Sequence[Sequence[int]]) -> np.ndarray:
    """The sum of each statistic over each cluster (clusters, names)."""
    return np.array([[sum(rows[position][name] for position in group) for name in names] for group in members], float)


def _mean_draws(sums: Sequence[np.ndarray], counts: Sequence[int], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Means (versions, names) of each draw."""
    rng, sizes, clusters = np.random.default_rng(seed), np.array(counts, float), len(counts)
    for _ in range(resamples):
        times = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters).astype(float)
        yield np.stack([times @ one for one in sums]) / (times @ sizes)


def _cluster(record: Record) -> str:
    return str(record.meta.get("image_id", record.index))
