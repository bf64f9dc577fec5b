"""What a check has found, source by source: rows added up, rows compared with each other, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mllm.dataset.problems import ERROR, FIRST, KINDS, Problem
from mllm.dataset.row_checks import place_of
from mllm.pipeline.check_rows import CheckedSource, Chunk

# Of boxes that are xyxy, those that begin right of or below the middle never lie in the image as xywh.
XYWH_ROWS, XYWH_SHARE = 20, 0.95


@dataclass
class SourceReport:
    """One source: ``total`` adds up its chunks, 8 bytes a row and 16 an image stay to compare them."""

    one: CheckedSource
    total: Chunk
    keys: list[np.ndarray] = field(default_factory=list)
    image_keys: list[np.ndarray] = field(default_factory=list)
    image_rows: list[np.ndarray] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``set/source``."""
        return f"{self.one.set_name}/{self.one.name}"

    @property
    def all_rows(self) -> int:
        """The rows that a run may read, checked or not."""
        chosen = self.one.source.chosen
        return self.one.source.rows if chosen is None else len(chosen)

    def add(self, chunk: Chunk) -> None:
        """Count the next rows."""
        for name in ("rows", "failed", "stopping", "with_places", "xywh"):
            setattr(self.total, name, getattr(self.total, name) + getattr(chunk, name))
        self.total.tally.merge(chunk.tally)
        self.keys.append(chunk.keys)
        self.image_keys.append(chunk.image_keys)
        self.image_rows.append(chunk.image_rows)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys of all images, and the rows that show them."""
        return _joined(self.image_keys, np.uint64), _joined(self.image_rows, np.int64)

    def find_duplicates(self) -> None:
        """Note the rows that repeat an earlier one."""
        keys = _joined(self.keys, np.uint64)
        checked = np.flatnonzero(keys)
        _, first, inverse = np.unique(keys[checked], return_index=True, return_inverse=True)
        again = checked[first[inverse] != np.arange(len(checked))]
        earlier = checked[first[inverse]][first[inverse] != np.arange(len(checked))]
        problems = [
            Problem("duplicate", self._place(int(b)), f"repeats {self._place(int(a))}")
            for a, b in zip(earlier[:FIRST], again[:FIRST], strict=True)
        ]
        self._note("duplicate", len(again), problems)

    def find_xywh(self) -> None:
        """Suspect the whole source where nearly all of its boxes lie in their images as xywh, too."""
        boxed, fitting = self.total.with_places, self.total.xywh
        if boxed >= XYWH_ROWS and fitting >= XYWH_SHARE * boxed:
            kind, tally = "looks like xywh", self.total.tally
            message = f"in {fitting} of {boxed} rows all boxes would lie in the image as (x, y, width, height)"
            tally.rows[kind], tally.first[kind] = fitting, tally.first.get(kind) or [Problem(kind, self.name, message)]

    def find_train_images(self, train: Sequence[SourceReport]) -> None:
        """Note the rows that show an image which a source of ``train`` shows, too."""
        keys, rows = self.images()
        shown, first = np.zeros(len(keys), dtype=bool), []
        for other in train:
            other_keys, other_rows = other.images()
            hits = np.isin(keys, other_keys)
            for position in np.flatnonzero(hits & ~shown)[: FIRST - len(first)]:
                there = other_rows[np.flatnonzero(other_keys == keys[position])[0]]
                first.append(self._shown_in_train(int(rows[position]), other, int(there)))
            shown |= hits
        self._note("image also in train", len(np.unique(rows[shown])), first)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        total = self.total
        return {
            "source": self.name,
            "rows": self.all_rows,
            "checked": total.rows,
            "failed": total.failed,
            "problems": [self._problem(kind) for kind in total.tally.kinds],
        }

    def _problem(self, kind: str) -> dict[str, Any]:
        total, rows = self.total, self.total.tally.rows[kind]
        of = (total.with_places if KINDS[kind].of_places else total.rows) or total.rows
        first = [{"place": one.place, "message": one.message} for one in total.tally.first[kind]]
        return {
            "problem": kind,
            "severity": KINDS[kind].severity,
            "rows": rows,
            "share": round(rows / max(of, rows), 4),
            "first": first,
        }

    def _shown_in_train(self, row: int, other: SourceReport, there: int) -> Problem:
        place = place_of(self.one.source.dataset, row)
        return Problem(
            "image also in train", f"{place}:image", f"is shown by {place_of(other.one.source.dataset, there)}"
        )

    def _note(self, kind: str, rows: int, first: Sequence[Problem]) -> None:
        if rows:
            self.total.tally.add(kind, rows, first)

    def _place(self, position: int) -> str:
        return place_of(self.one.source.dataset, int(self.one.indices[position]))


def _joined(parts: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


@dataclass
class Verdict:
    """Whether a run would go through, and the reason in words."""

    passes: bool
    reason: str


def compare(reports: Iterable[SourceReport]) -> None:
    """Find what shows between rows only."""
    reports = list(reports)
    train = [report for report in reports if report.one.trains]
    for report in reports:
        report.find_duplicates()
        report.find_xywh()
        if not report.one.trains:
            report.find_train_images(train)


def judge(reports: Sequence[SourceReport], data_args: dict[str, Any], epochs: float) -> Verdict:
    """Whether a run would fail or lose more samples than ``data_args.error_budget``; evaluation may lose none.

    The samples that ``epochs`` epochs lose are estimated from the share of rows that fail.
    """
    failed = {report.name: report.total.failed for report in reports if report.total.failed}
    if not failed:
        return Verdict(True, "a run would lose no row")
    stopping = [report.name for report in reports if report.total.stopping]
    if stopping:
        return Verdict(False, f"a run would stop, or train on wrong tokens, at rows of {stopping[0]}")
    lost = [report for report in reports if report.total.failed and not report.one.trains]
    if lost:
        return Verdict(False, f"rows of {lost[0].name} would score 0")
    if data_args.get("on_error", "raise") == "raise":
        return Verdict(False, "a run would stop at the first of them (data_args.on_error is 'raise')")
    whole = [report.name for report in reports if report.total.failed == report.total.rows]
    if whole:
        return Verdict(False, f"no row of {whole[0]} is readable, so none could replace another")
    return _within_budget(reports, data_args.get("error_budget"), epochs)


def _within_budget(reports: Sequence[SourceReport], budget: int | None, epochs: float) -> Verdict:
    samples = sum(one.total.failed / one.total.rows * one.one.source.samples for one in reports if one.one.trains)
    replaced = math.ceil(samples * epochs - 1e-9)
    told = f"a run of {epochs:.3g} epochs would replace about {replaced} samples"
    if budget is None:
        return Verdict(True, f"{told}; data_args.error_budget sets no limit")
    return Verdict(replaced <= budget, f"{told}, data_args.error_budget allows {budget}")


def count_errors(reports: Iterable[SourceReport]) -> tuple[int, int]:
    """Numbers of findings that are errors, and that are warnings."""
    found = [(KINDS[kind].severity == ERROR, rows) for one in reports for kind, rows in one.total.tally.rows.items()]
    return sum(rows for error, rows in found if error), sum(rows for error, rows in found if not error)
