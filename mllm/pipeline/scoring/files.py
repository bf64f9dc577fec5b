"""Files of others: JSON or JSON lines, gzipped or not, and the table of layouts by which they are told apart."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mllm.errors import DataError
from mllm.utils.files import parse_json
from mllm.utils.storage import read_bytes


@dataclass(frozen=True)
class DataFile:
    """A file as it was read: ``rows`` of JSON lines or of a list, ``mapping`` of one JSON object.

    A single line that is an object is both.
    """

    path: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    mapping: dict[str, Any] = field(default_factory=dict)

    def has(self, *fields: str) -> bool:
        """True if there are rows and the first has all of ``fields``."""
        return bool(self.rows) and all(name in self.rows[0] for name in fields)


@dataclass(frozen=True)
class Layout:
    """One known layout: its name, how its content looks, how it is recognised and read."""

    name: str
    looks: str
    matches: Callable[[DataFile], bool]
    read: Callable[[DataFile], Any]


def read_file(path: str) -> DataFile:
    """The content of a JSON or JSON-lines file, unpacked if it is gzipped; DataError if it is neither."""
    text = _text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: empty; expected JSON or JSON lines")
    if _is_object(lines[0][1]):
        rows = [parse_json(line, f"{path}:{number}", one_line=True) for number, line in lines]
        return DataFile(path, _objects(rows, path), rows[0] if len(rows) == 1 else {})
    value = parse_json(text, path)
    if isinstance(value, dict):
        return DataFile(path, mapping=value)
    if not isinstance(value, list) or not value:
        raise DataError(f"{path}: expected an object, or a list of objects that is not empty, got {value!r:.60}")
    return DataFile(path, _objects(value, path))


def layout_of(file: DataFile, layouts: Sequence[Layout], kind: str) -> Layout:
    """The layout that ``file`` has; DataError listing the known ones if there is none."""
    for layout in layouts:
        if layout.matches(file):
            return layout
    found = ", ".join(map(repr, list(file.mapping or file.rows[0])[:6]))
    known = "; ".join(f"{layout.name} {layout.looks}" for layout in layouts)
    raise DataError(f"{file.path}: unknown layout of {kind} (fields {found}); known: {known}")


def value_of(row: Mapping[str, Any], name: str, where: str, kind: type | tuple[type, ...] = (str, int)) -> Any:
    """The field ``name`` of ``row``; DataError if it is missing or of another kind."""
    if name not in row:
        raise DataError(f"{where}: field {name!r} is missing")
    if not isinstance(row[name], kind):
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise DataError(f"{where}: field {name!r} must be {wanted}, got {row[name]!r:.60}")
    return row[name]


def _text(path: str) -> str:
    content = read_bytes(path)
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken gzip file ({error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (json.JSONDecodeError, RecursionError):
        return False


def _objects(rows: list[Any], path: str) -> list[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: entry {number}: expected an object, got {row!r:.60}")
    return rows
