"""The evaluator's contract: parse a record, give its statistics, reduce many of them to the declared metrics."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mllm.structures import Record

Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Failure:
    """Why a prediction could not be read; it scores 0 and is counted by its reason."""

    reason: str


@dataclass
class Evaluation:
    """The outcome over a set of records: metrics, their intervals, each record's score row, failures by reason.

    ``tables`` holds a table for each dimension that the evaluator groups by: category → metrics and ``samples``.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    scores: list[dict[str, Any]]
    failures: Counter[str] = field(default_factory=Counter)
    signature: str = ""
    tables: dict[str, Table] = field(default_factory=dict)


class Evaluator:
    """Base of what EVALUATORS holds. ``metrics`` are declared; the first selects the best checkpoint.

    ``dimensions`` are the fields of ``record.meta`` that scores are broken down by, a table each.
    ``formatter`` is set by the run (what the model's text speaks); an evaluator of plain text ignores it.
    """

    metrics: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[tuple[str, ...]] = ("category",)
    formatter: Any = None

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

    def evaluate(self, records: Sequence[Record], *, resamples: int = 200, seed: int = 0) -> Evaluation:
        """Score all records; intervals are 95 % bootstrap intervals, resampled by image (``meta["image_id"]``)."""
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
        intervals = bootstrap(self, rows, [_cluster(record) for record in records], resamples, seed)
        return Evaluation(metrics, intervals, scores, failures, signature, category_tables(self, rows, records))


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
    evaluator: Evaluator, rows: Sequence[dict[str, Any]], clusters: Sequence[str], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The 2.5 and 97.5 % points of each metric over ``resamples`` draws of whole clusters with replacement."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row, cluster in zip(rows, clusters, strict=True):
        groups.setdefault(cluster, []).append(row)
    members, rng = list(groups.values()), random.Random(seed)
    if len(members) < 2 or resamples < 2:
        return {}
    draws = []
    for _ in range(resamples):
        chosen = rng.choices(members, k=len(members))
        draws.append(evaluator.reduce([row for group in chosen for row in group]))
    intervals = {}
    for name in evaluator.metrics:
        values = sorted(draw[name] for draw in draws)
        low, high = int(0.025 * (len(values) - 1)), round(0.975 * (len(values) - 1))
        intervals[name] = (values[low], values[high])
    return intervals


def _cluster(record: Record) -> str:
    return str(record.meta.get("image_id", record.index))
