"""Members of a JSON object ``{id: value}`` read lazily and found by id: GQA's questions, MIMIC-IT's files.

One pass over the file notes where each member begins and a hash of its id (16 bytes a member); strings are passed over
without being read into memory, so that a file of base64 images costs its index alone.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from mllm.dataset.row_index import Buffer
from mllm.dataset.rows import IndexedRows, Row
from mllm.errors import DataError
from mllm.utils.files import parse_json

_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[^\s,\]}]+")
_BRACKET = re.compile(rb'(?:[^"\[\]{}]+|"[^"\\]*(?:\\.[^"\\]*)*")*([\[\]{}])', re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ObjectRows(IndexedRows):
    """The members of a JSON object: the file itself, or what stands under the top-level ``key``.

    As a sequence it gives rows in the order of the file: the value's fields and ``id``; a value that is no object
    stands in ``value``. ``find`` gives the row of an id.
    """

    def __init__(self, path: str | Path, key: str | None = None) -> None:
        self.key = key
        self.kind = f"members {key or ''}"
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None
        super().__init__(path)
        self.name = f"{self.path}:{key}" if key else str(self.path)

    def scan(self, buffer: Buffer) -> np.ndarray:
        """(2, members + 1): where each begins, the hash of its id; last the end of the object."""
        return scan_members(buffer, self.key, str(self.path))

    def __getitem__(self, index: int) -> Row:
        identity, value = self.member(index)
        fields = value if isinstance(value, dict) else {"value": value}
        return Row({**fields, "id": identity}, f"{self.name}[{identity}]")

    def member(self, index: int) -> tuple[str, Any]:
        """Id and value of the member at ``index``."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = int(self._index[0, index]), int(self._index[0, index + 1])
        place = f"{self.name}[{index}]"
        try:
            text = self._read(start, end).rstrip(b" \t\r\n,").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
        ((identity, value),) = parse_json("{" + text + "}", place).items()
        return identity, value

    def find(self, identity: str) -> Row | None:
        """The row of ``identity``, None where there is none."""
        if self._sorted is None:
            hashes = self._index[1, :-1]
            order = np.argsort(hashes, kind="stable")
            self._sorted = order, hashes[order]
        order, hashes = self._sorted
        wanted = _hash(identity.encode("utf-8"))
        place = int(np.searchsorted(hashes, wanted))
        while place < len(hashes) and hashes[place] == wanted:
            row = self[int(order[place])]
            if row["id"] == identity:
                return row
            place += 1
        return None


def scan_members(buffer: Buffer, key: str | None, name: str) -> np.ndarray:
    """(2, members + 1): begin and hash of the id of every member of the object, or of the one under ``key``.

    Raises:
        DataError: no such object, or one that is broken.
    """
    position = len(_BYTE_ORDER_MARK) if buffer[:3] == _BYTE_ORDER_MARK else 0
    position = _skip(buffer, position)
    if key is not None:
        position = _under(buffer, position, key, name)
    starts, hashes = array("q"), array("q")
    end = None
    for begin, key_end, value in _members(buffer, position, name):
        end = begin
        if value is not None:
            starts.append(begin)
            hashes.append(_hash(_text(buffer[begin:key_end]).encode("utf-8")))
    return np.array([[*starts, end], [*hashes, 0]], dtype=np.int64)


def _under(buffer: Buffer, position: int, key: str, name: str) -> int:
    for begin, key_end, value in _members(buffer, position, name):
        if value is not None and _text(buffer[begin:key_end]) == key:
            return value
    raise DataError(f"{name}: expected a JSON object with an object under {key!r}")


def _members(buffer: Buffer, position: int, name: str) -> Iterator[tuple[int, int, int | None]]:
    """(begin, end of the key, begin of the value) of each member, last (end of the object, same, None)."""
    if buffer[position : position + 1] != b"{":
        raise DataError(f"{name}: expected a JSON object {{id: …}} at byte {position}")
    position, first = _skip(buffer, position + 1), True
    while buffer[position : position + 1] != b"}":
        if not first:
            position = _skip(buffer, _past(buffer, position, b",", name))
        key_end = _string_end(buffer, position, name)
        value = _skip(buffer, _past(buffer, _skip(buffer, key_end), b":", name))
        yield position, key_end, value
        position, first = _skip(buffer, _value_end(buffer, value, name)), False
    yield position, position, None


def _skip(buffer: Buffer, position: int) -> int:
    return _SPACE.match(buffer, position).end()


def _past(buffer: Buffer, position: int, mark: bytes, name: str) -> int:
    if buffer[position : position + 1] != mark:
        raise DataError(f"{name}: broken JSON: expected {mark.decode()!r} at byte {position}")
    return position + 1


def _string_end(buffer: Buffer, position: int, name: str) -> int:
    _past(buffer, position, b'"', name)
    quote = buffer.find(b'"', position + 1)
    while quote >= 0:
        before = quote - 1
        while buffer[before] == 0x5C:
            before -= 1
        if (quote - before) % 2:
            return quote + 1
        quote = buffer.find(b'"', quote + 1)
    raise DataError(f"{name}: broken JSON: the text that begins at byte {position} does not end")


def _value_end(buffer: Buffer, position: int, name: str) -> int:
    first = buffer[position : position + 1]
    if first == b'"':
        return _string_end(buffer, position, name)
    if first not in (b"{", b"["):
        scalar = _SCALAR.match(buffer, position)
        if scalar is None:
            raise DataError(f"{name}: broken JSON: expected a value at byte {position}")
        return scalar.end()
    depth = 0
    for match in _BRACKET.finditer(buffer, position):
        depth += 1 if match.group(1) in b"[{" else -1
        if depth == 0:
            return match.end()
    raise DataError(f"{name}: broken JSON: the value that begins at byte {position} does not end")


def _text(quoted: bytes) -> str:
    return json.loads(quoted)


def _hash(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little", signed=True)
