"""The records of a predictions file, and the check that every index stands there exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllm.errors import DataError
from mllm.structures import Record
from mllm.utils.files import read_jsonl

SHOWN = 5


def read_records(path: Path) -> list[Record]:
    """The records of a predictions file; a broken line is a DataError with its number."""
    if not path.is_file():
        raise DataError(f"predictions file {str(path)!r} does not exist")
    return [record_of(row, f"{path}:{number}") for number, row in read_jsonl(path)]


def record_of(row: Any, where: str) -> Record:
    """The record of one line; DataError that begins with ``where`` if it is none."""
    try:
        record = Record.from_dict(row)
    except (DataError, TypeError, KeyError) as error:
        raise DataError(f"{where}: not a prediction record ({error})") from error
    if type(record.index) is not int or not isinstance(record.pred, str):
        raise DataError(f"{where}: not a prediction record ('index' must be a whole number, 'pred' text)")
    return record


def in_order(
    records: Sequence[Record], expected: int, where: str, *, allow_partial: bool = False, advice: str = ""
) -> list[Record]:
    """The records by index; DataError that names missing, repeated and unknown indices of ``range(expected)``.

    ``allow_partial`` lets indices be missing; ``advice`` ends the sentence.
    """
    counts = Counter(record.index for record in records)
    faults = {
        "missing": [] if allow_partial else [index for index in range(expected) if index not in counts],
        "repeated": sorted(index for index, count in counts.items() if count > 1),
        "unknown": sorted(index for index in counts if not 0 <= index < expected),
    }
    told = [f"{len(found)} {fault} ({first(found)})" for fault, found in faults.items() if found]
    if told or not records:
        told = told or ["none is there"]
        raise DataError(f"{where}: {len(records)} predictions for {expected} samples: {', '.join(told)}{advice}")
    return sorted(records, key=lambda record: record.index)


def first(values: Sequence[object]) -> str:
    """The first few of ``values``, comma-joined."""
    return ", ".join(map(str, values[:SHOWN])) + (", …" if len(values) > SHOWN else "")
