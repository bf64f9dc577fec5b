"""A scored set: what is printed of it, what its JSON holds, and what a comparison needs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mllm
from mllm.errors import DataError
from mllm.evaluation.base import Evaluator
from mllm.structures import Record
from mllm.utils.files import atomic_write, read_json

Rows = list[dict[str, Any]]


@dataclass
class Scored:
    """One evaluator's outcome on a set; ``statistics`` is None where they are not plain JSON."""

    evaluator: dict[str, Any]
    summary: dict[str, Any]
    statistics: Rows | None


@dataclass
class ScoredSet:
    """A set of records with the outcomes of its evaluators; ``expected`` is how many records the set has.

    ``indices``, ``ids`` and ``clusters`` (images) belong to the records in order; ``truths`` is a digest of each
    record's truth.
    """

    name: str
    scored: list[Scored]
    indices: list[int]
    ids: list[str]
    clusters: list[str]
    truths: list[str]
    expected: int
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> str:
        """``500``, or ``480 of 500`` where some are missing."""
        count = len(self.indices)
        return str(count) if count == self.expected else f"{count} of {self.expected}"

    def to_dict(self) -> dict[str, Any]:
        """Everything but what belongs to single records."""
        return {
            "count": len(self.indices),
            "expected": self.expected,
            "data": self.data,
            "evaluators": [{"evaluator": one.evaluator, **one.summary} for one in self.scored],
        }

    def records(self) -> dict[str, Any]:
        """What belongs to single records, by columns."""
        columns = [_columns(one.statistics) for one in self.scored]
        named = asdict(replace(self, scored=[]))
        return {name: named[name] for name in ("indices", "ids", "clusters", "truths")} | {"statistics": columns}

    @classmethod
    def from_dict(cls, name: str, row: Mapping[str, Any], records: Mapping[str, Any]) -> ScoredSet:
        """Read back what ``to_dict`` and ``records`` gave."""
        scored = []
        for one, columns in zip(row["evaluators"], records["statistics"], strict=True):
            summary = {key: value for key, value in one.items() if key != "evaluator"}
            scored.append(Scored(one["evaluator"], summary, _rows(columns)))
        columns = {key: records[key] for key in ("indices", "ids", "clusters", "truths")}
        return cls(name, scored, **columns, expected=row["expected"], data=row["data"])


def score_set(
    name: str,
    records: Sequence[Record],
    evaluators: Sequence[Evaluator],
    configs: Sequence[Mapping[str, Any]],
    *,
    expected: int,
    data: dict[str, Any],
    resamples: int,
) -> ScoredSet:
    """Run every evaluator over ``records``; a signature says ``n=k of N`` where records are missing."""
    scored, clusters = [], []
    for evaluator, config in zip(evaluators, configs, strict=True):
        evaluation = evaluator.evaluate(records, resamples=resamples)
        if len(records) != expected:
            count = f"|n={len(records)}"
            evaluation.signature = evaluation.signature.replace(f"{count}|", f"{count} of {expected}|")
        scored.append(Scored(dict(config), evaluation.summary(), evaluation.statistics))
        clusters = evaluation.clusters
    return ScoredSet(
        name,
        scored,
        [record.index for record in records],
        [record.id for record in records],
        clusters,
        [_digest(record.truth) for record in records],
        expected,
        data,
    )


def write_scored(path: Path, sets: Sequence[ScoredSet]) -> None:
    """``{"mllm", "sets", "records"}``: the outcomes indented, the records compact."""
    head = json.dumps(
        {"mllm": mllm.__version__, "sets": {one.name: _plain(one.to_dict()) for one in sets}},
        indent=2,
        ensure_ascii=False,
        default=str,
    )
    records = json.dumps({one.name: one.records() for one in sets}, ensure_ascii=False)
    atomic_write(path, f'{head.removesuffix("}").rstrip()},\n  "records": {records}\n}}\n')


def read_scored(path: Path) -> list[ScoredSet]:
    """What ``write_scored`` wrote; DataError if the file is anything else."""
    found = read_json(path)
    try:
        return [ScoredSet.from_dict(name, row, found["records"][name]) for name, row in found["sets"].items()]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        wanted = "a run folder, one of its files, or what 'mllm score --json' wrote"
        raise DataError(f"{path}: no file of scores with their records; expected {wanted}") from error


def _digest(truth: Mapping[str, Any]) -> str:
    text = json.dumps(truth, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _columns(rows: Rows | None) -> dict[str, list[Any]] | None:
    """Name → values, or None where rows differ in their names or JSON would change a value."""
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        return None
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    try:
        return columns if json.loads(json.dumps(columns)) == _plain(columns) else None
    except (TypeError, ValueError):
        return None


def _rows(columns: Mapping[str, list[Any]] | None) -> Rows | None:
    if columns is None:
        return None
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    """Lists for tuples, None for the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
