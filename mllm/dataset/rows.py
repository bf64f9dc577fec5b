"""Annotation rows read lazily: byte offsets stand for a JSON-lines file, a row is parsed when it is asked for."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mllm.errors import DataError
from mllm.utils.files import parse_json


class Row(dict):
    """One annotation row that knows its place: a missing field is a DataError naming file, row and field."""

    def __init__(self, values: dict[str, Any], place: str) -> None:
        super().__init__(values)
        self.place = place

    def __missing__(self, key: str) -> Any:
        have = ", ".join(map(str, self)) or "nothing"
        raise DataError(f"{self.place}: field {key!r} is missing; the row has {have}")


class JsonlRows(Sequence):
    """The rows of a JSON-lines file; 16 bytes a row stay in memory, and a copy in a worker process reopens the file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"annotation file {str(self.path)!r} does not exist; check the path or set MLLM_DATA")
        self._offsets, self._lines = _scan(self.path)
        self._file = None

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Row:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        if self._file is None:
            self._file = self.path.open("rb")
        self._file.seek(self._offsets[index])
        place = f"{self.path}:{self._lines[index]}"
        return parse_row(self._file.readline(), place)

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


class ListRows(Sequence):
    """Rows that are in memory already (a JSON array, a joined table); ``name`` tells where they come from."""

    def __init__(self, rows: Sequence[dict[str, Any]], name: str) -> None:
        self.rows = rows
        self.name = name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return Row(self.rows[index], f"{self.name}[{index}]")


def parse_row(line: bytes, place: str) -> Row:
    """One JSON object, or a DataError with the place and the column."""
    try:
        values = parse_json(line.decode("utf-8").rstrip("\r\n"), place, one_line=True)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(values).__name__}")
    return Row(values, place)


def _scan(path: Path) -> tuple[array, array]:
    offsets, lines, position = array("Q"), array("Q"), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                offsets.append(position)
                lines.append(number)
            position += len(line)
    return offsets, lines
