"""Two scored versions of one set side by side: differences with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mllm.engine.records import first
from mllm.errors import DataError
from mllm.evaluation.draws import middle, resample
from mllm.pipeline.scoring.scored import Scored, ScoredSet
from mllm.registry import EVALUATORS


@dataclass(frozen=True)
class Difference:
    """One metric over the common samples; ``interval`` of B − A and ``b_greater``, the share of draws with B > A."""

    metric: str
    a: float
    b: float
    interval: tuple[float, float] | None
    b_greater: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the difference included."""
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.b - self.a,
            "interval": None if self.interval is None else list(self.interval),
            "b_greater": self.b_greater,
        }


@dataclass(frozen=True)
class Comparison:
    """What two versions of a set say: names, number of common samples, signatures and a ``Difference`` a metric."""

    a: str
    b: str
    samples: int
    signatures: list[tuple[str, str]]
    differences: list[Difference]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "a": self.a,
            "b": self.b,
            "samples": self.samples,
            "signatures": [list(pair) for pair in self.signatures],
            "differences": {one.metric: one.to_dict() for one in self.differences},
        }


def compare_sets(
    a: ScoredSet, b: ScoredSet, *, resamples: int, seed: int = 0, allow_partial: bool = False
) -> Comparison:
    """Every metric of the evaluators that both have; DataError where the two are not of the same data."""
    places = _common(a, b, allow_partial)
    clusters = [a.clusters[i] for i, _ in places]
    differences, signatures = [], []
    for one, other in _pairs(a, b):
        versions = [[one.statistics[i] for i, _ in places], [other.statistics[j] for _, j in places]]
        signatures.append((one.summary["signature"], other.summary["signature"]))
        evaluator = EVALUATORS.build(one.evaluator)
        whole = [evaluator.reduce(rows) for rows in versions]
        draws = resample(evaluator, versions, clusters, resamples, seed)
        # METEOR is no metric of rows that were scored where Java is missing.
        shared = [name for name in evaluator.metrics if all(name in values for values in whole)]
        differences += [_difference(name, whole, draws) for name in shared]
    return Comparison(a.name, b.name, len(places), signatures, differences)


def _difference(name: str, whole: Sequence[dict[str, float]], draws: Sequence[dict[str, list[float]]]) -> Difference:
    apart = [y - x for x, y in zip(draws[0].get(name, []), draws[1].get(name, []), strict=True)]
    if not apart:
        return Difference(name, whole[0][name], whole[1][name], None, None)
    greater = sum(value > 0 for value in apart) / len(apart)
    return Difference(name, whole[0][name], whole[1][name], middle(apart), greater)


def _common(a: ScoredSet, b: ScoredSet, allow_partial: bool) -> list[tuple[int, int]]:
    """Where each common sample stands in ``a`` and in ``b``."""
    _check_files(a, b)
    mine, theirs = ({key: place for place, key in enumerate(zip(one.indices, one.ids, strict=True))} for one in (a, b))
    for holder, lacking in ((mine, theirs), (theirs, mine)):
        alone = [index for index, _ in holder.keys() - lacking.keys()]
        if alone and (not allow_partial or len(alone) == len(holder)):
            side = "A" if holder is mine else "B"
            told = f"{len(alone)} samples are in {side} alone ({first(sorted(alone))})"
            raise DataError(f"{a.name} and {b.name} cannot be compared: {told}; expected the same set")
    places = [(place, theirs[key]) for key, place in mine.items() if key in theirs]
    other = [a.ids[i] for i, j in places if a.truths[i] != b.truths[j]]
    if other:
        told = f"the truth of {len(other)} samples differs (id {first(other)})"
        raise DataError(f"{a.name} and {b.name} cannot be compared: {told}; expected the same data")
    return places


def _check_files(a: ScoredSet, b: ScoredSet) -> None:
    digests = [sorted(file["sha256"] for file in one.data.get("files") or []) for one in (a, b)]
    if all(digests) and digests[0] != digests[1]:
        files = " and ".join(", ".join(file["path"] for file in one.data["files"]) for one in (a, b))
        raise DataError(f"{a.name} and {b.name} cannot be compared: their data have other fingerprints ({files})")
    if a.expected != b.expected:
        told = f"A has {a.expected} samples and B {b.expected}"
        raise DataError(f"{a.name} and {b.name} cannot be compared: {told}; expected the same set")


def _pairs(a: ScoredSet, b: ScoredSet) -> list[tuple[Scored, Scored]]:
    theirs = {one.evaluator["type"]: one for one in b.scored}
    pairs = []
    for one in a.scored:
        other = theirs.get(one.evaluator["type"])
        if other is None:
            continue
        if one.evaluator != other.evaluator:
            raise DataError(
                f"{a.name}: A is scored with {one.evaluator} and B with {other.evaluator}; expected the same options"
            )
        if one.statistics is None or other.statistics is None:
            raise DataError(
                f"{a.name}: the file holds no statistics of {one.evaluator['type']}; compare the run folders instead"
            )
        pairs.append((one, other))
    if not pairs:
        names = [", ".join(one.evaluator["type"] for one in side.scored) for side in (a, b)]
        raise DataError(f"{a.name}: A is scored with {names[0]} and B with {names[1]}; expected a common evaluator")
    return pairs
