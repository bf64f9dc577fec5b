"""Tables put together without holding them: rows changed as they are read, chosen rows, rows found by a field."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from mllm.dataset.rows import Row
from mllm.errors import DataError


class MappedRows(Sequence):
    """The rows as ``function`` rewrites them, one by one as they are read; a row keeps its place."""

    def __init__(self, rows: Sequence[Row], function: Callable[[Row], dict[str, Any]]) -> None:
        self.rows = rows
        self.function = function

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self._mapped(self.rows[index])

    def __iter__(self) -> Iterator[Row]:
        return map(self._mapped, self.rows)

    def _mapped(self, row: Row) -> Row:
        try:
            return Row(self.function(row), row.place)
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(f"{row.place}: a field is not as expected ({type(error).__name__}: {error})") from error


class SelectedRows(Sequence):
    """The rows at ``positions``, eight bytes each."""

    def __init__(self, rows: Sequence[Row], positions: Sequence[int]) -> None:
        self.rows = rows
        self.positions = np.asarray(positions, dtype=np.int64)

    @classmethod
    def where(cls, rows: Sequence[Row], keep: Callable[[Row], bool]) -> SelectedRows:
        """The rows that ``keep`` accepts; every row is read once."""
        return cls(rows, np.fromiter((i for i, row in enumerate(rows) if keep(row)), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Row:
        return self.rows[int(self.positions[index])]

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))


class FieldIndex:
    """Rows of a table found by the value of a field: 16 bytes a row, the rows stay in their file.

    Every row is read once at the start. ``keep`` leaves rows out. Values are whole numbers or text, not both.
    """

    def __init__(self, rows: Sequence[Row], field: str, keep: Callable[[Row], bool] | None = None) -> None:
        self.rows = rows
        self.field = field
        codes, positions, kinds = array("q"), array("q"), set()
        for position, row in enumerate(rows):
            if keep is None or keep(row):
                value = _value(row, field)
                kinds.add(type(value))
                codes.append(_code(value))
                positions.append(position)
        if len(kinds) > 1:
            raise DataError(f"{_name(rows)}: field {field!r} is a number in some rows and text in others")
        self.kind = kinds.pop() if kinds else int
        found = np.array(codes, dtype=np.int64)
        order = np.argsort(found, kind="stable")
        self._codes = found[order]
        self._positions = np.array(positions, dtype=np.int64)[order]

    def __contains__(self, value: int | str) -> bool:
        return bool(self.find_all(value))

    def all_positions(self) -> np.ndarray:
        """Where the kept rows stand, in the file's order."""
        return np.sort(self._positions)

    def first_positions(self) -> np.ndarray:
        """Where each value stands for the first time, in the file's order."""
        return np.sort(self._positions[np.unique(self._codes, return_index=True)[1]])

    def positions_in(self, other: FieldIndex) -> np.ndarray:
        """Where the kept rows stand whose value ``other`` has too, in the file's order."""
        if self.kind is not other.kind:
            return self._positions[:0]
        return np.sort(self._positions[np.isin(self._codes, other._codes)])

    def find_all(self, value: int | str) -> list[Row]:
        """The rows with ``value``, in the file's order."""
        if type(value) is not self.kind:
            return []
        first, end = np.searchsorted(self._codes, _code(value)), np.searchsorted(self._codes, _code(value), "right")
        rows = (self.rows[int(position)] for position in self._positions[first:end])
        return [row for row in rows if row[self.field] == value]

    def find(self, value: int | str, place: str) -> Row:
        """The row with ``value``, the first if there are several; DataError naming ``place``, which asks, if none."""
        rows = self.find_all(value)
        if not rows:
            raise DataError(f"{place}: {self.field} {value!r} is not in {_name(self.rows)}")
        return rows[0]


def _value(row: Row, field: str) -> int | str:
    value = row[field]
    if type(value) not in (int, str):
        raise DataError(f"{row.place}: field {field!r} must be a whole number or text, got {value!r:.60}")
    return value


def _code(value: int | str) -> int:
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return int.from_bytes(blake2b(str(value).encode(), digest_size=8).digest(), "little", signed=True)


def _name(rows: Sequence[Row]) -> str:
    while hasattr(rows, "rows"):
        rows = rows.rows
    key = getattr(rows, "key", None)
    return f"{getattr(rows, 'path', 'the table')}" + (f":{key}" if key else "")
