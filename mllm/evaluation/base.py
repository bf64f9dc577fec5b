"""The evaluator's contract: parse a record, give its statistics, reduce many of them to the declared metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mllm.evaluation.draws import Addends, Draw, Rows, Sums, add_up, bootstrap, drawn_sums
from mllm.structures import Record

Table = dict[str, dict[str, float]]
RESAMPLES = 200
SAMPLES = "samples"


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

    def start(self) -> None:
        """Called before generation, in the process that will evaluate: what takes long to load is begun here."""

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

    def addends(self, row: Mapping[str, Any]) -> Addends:
        """What adds up of one record's statistics, by any key: here each metric, and 1 under ``SAMPLES``."""
        return {SAMPLES: 1, **{name: row[name] for name in self.metrics}}

    def from_sums(self, sums: Sums) -> dict[str, float]:
        """The metrics from the sums of ``addends``: here their means. A key that no record has gives 0."""
        return {name: sums[name] / max(sums[SAMPLES], 1) for name in self.metrics}

    def reduce(self, statistics: Rows) -> dict[str, float]:
        """The metrics over ``statistics``; what is no function of sums overrides this, and ``drawn`` to be fast."""
        return self.from_sums(add_up(map(self.addends, statistics)))

    def drawn(self, statistics: Rows, clusters: np.ndarray) -> Draw:
        """``reduce`` for many draws of the same rows: a function of how often each cluster is drawn (clusters,).

        ``clusters`` (rows,) holds the number of each row's cluster. Sums are taken in another order than in ``reduce``.
        """
        sums = drawn_sums(map(self.addends, statistics), clusters)
        return lambda times: self.from_sums(sums(times))

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


def _cluster(record: Record) -> str:
    return str(record.meta.get("image_id", record.index))
