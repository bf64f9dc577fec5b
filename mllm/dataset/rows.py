"""Annotation rows read lazily: offsets stand for the file, a row is parsed when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mllm.dataset.row_index import Buffer, cached_index, scan_array, scan_lines
from mllm.errors import DataError
from mllm.utils.files import parse_json
from mllm.utils.storage import local_file, resolve_path


class Row(dict):
    """One annotation row that knows its place: a missing field is a DataError naming file, row and field."""

    def __init__(self, values: dict[str, Any], place: str) -> None:
        super().__init__(values)
        self.place = place

    def __missing__(self, key: str) -> Any:
        have = ", ".join(map(str, self)) or "nothing"
        raise DataError(f"{self.place}: field {key!r} is missing; the row has {have}")


class IndexedRows(Sequence):
    """Rows of a file through the offsets of their beginnings; subclasses say where rows begin and how they are called.

    Eight bytes a row (sixteen where lines are numbered), shared between worker processes for a large file (they map the
    same index). Of a remote file a copy is read, see ``mllm.utils.object_cache``. Reading never moves a file position,
    so forked workers may share the object.
    """

    kind = ""

    def __init__(self, path: str | Path) -> None:
        self.path = resolve_path(path)
        self._descriptor: tuple[int, int] | None = None
        self._file = annotation_file(self.path)
        self._index = cached_index(Path(self._file), self.kind, self.scan)

    def scan(self, buffer: Buffer) -> np.ndarray:
        """The index of the whole file: first row the offsets, with the end as the last."""
        raise NotImplementedError

    def place(self, index: int) -> str:
        """What errors call row ``index``."""
        return f"{self.path}[{index}]"

    def __len__(self) -> int:
        return self._index.shape[1] - 1

    def __getitem__(self, index: int) -> Row:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = int(self._index[0, index]), int(self._index[0, index + 1])
        return parse_row(self._read(start, end), self.place(index))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self) -> None:
        process, descriptor = getattr(self, "_descriptor", None) or (0, 0)
        if process == os.getpid():
            os.close(descriptor)

    def _read(self, start: int, end: int) -> bytes:
        if self._descriptor is None or self._descriptor[0] != os.getpid():
            self._descriptor = (os.getpid(), os.open(self._file, os.O_RDONLY))
        return os.pread(self._descriptor[1], end - start, start)


class JsonlRows(IndexedRows):
    """The rows of a JSON-lines file; blank lines are passed over."""

    kind = "lines"

    def scan(self, buffer: Buffer) -> np.ndarray:
        """The offsets and line numbers of the rows."""
        return scan_lines(buffer)

    def place(self, index: int) -> str:
        """``file:line``."""
        return f"{self.path}:{int(self._index[1, index])}"


class JsonRows(IndexedRows):
    """The objects of a JSON array: the file itself, or what stands under the top-level ``key``."""

    def __init__(self, path: str | Path, key: str | None = None) -> None:
        self.key = key
        self.kind = f"array {key or ''}"
        super().__init__(path)

    def scan(self, buffer: Buffer) -> np.ndarray:
        """The offsets of the rows."""
        return scan_array(buffer, self.key, self._name())

    def place(self, index: int) -> str:
        """``file[index]`` or ``file:key[index]``."""
        return f"{self._name()}[{index}]"

    def _name(self) -> str:
        return f"{self.path}:{self.key}" if self.key else str(self.path)


class ListRows(Sequence):
    """Rows that are in memory already (a joined table); ``name`` tells where they come from."""

    def __init__(self, rows: Sequence[dict[str, Any]], name: str) -> None:
        self.rows = rows
        self.name = name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return Row(self.rows[index], f"{self.name}[{index}]")


def open_rows(path: str | Path) -> IndexedRows:
    """The rows of ``.json`` (an array) or ``.jsonl`` (one object a line); a file of another name is told by its start.

    An array stored as ``.jsonl`` and lines stored as ``.json``, both seen in the wild, are read as what they are.
    """
    where = resolve_path(path)
    with open(annotation_file(where), "rb") as stream:
        start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return JsonRows(where) if start.startswith(b"[") else JsonlRows(where)


def annotation_file(path: str) -> str:
    """The file to open for ``path``, for a remote one its copy; DataError if there is none."""
    file = local_file(path)
    if not os.path.isfile(file):
        raise DataError(f"annotation file {path!r} does not exist; check the path or set MLLM_DATA")
    return file


def parse_row(text: bytes, place: str) -> Row:
    """One JSON object, or a DataError with the place and the column."""
    try:
        values = parse_json(text.decode("utf-8-sig").rstrip(", \r\n\t"), place, one_line=True)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(values).__name__}")
    return Row(values, place)
