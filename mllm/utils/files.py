"""Files that are whole or absent, and JSON whose errors name file, line and column."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mllm.errors import DataError
from mllm.utils.storage import is_remote, read_text


@contextmanager
def atomic_open(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open for writing; ``path`` appears, complete, only if the body ends without an exception.

    The text lies beside it as ``.NAME.PID.tmp`` until then; missing folders are made. ``mode`` is "w" or "wb".
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` so that no reader, and no crash, ever sees half of it."""
    with atomic_open(path, "wb" if isinstance(content, bytes) else "w") as stream:
        stream.write(content)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file, local or remote; DataError with file:line:column if it is broken."""
    return parse_json(read_text(path), str(path))


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[tuple[int, Any]]:
    """Line number (from 1) and value of every line that is not blank; DataError with file:line:column.

    A local file is read line by line, a remote one at once.
    """
    if is_remote(path):
        yield from _lines(io.StringIO(read_text(path)), path)
        return
    try:
        with open(path, encoding="utf-8-sig") as stream:
            yield from _lines(stream, path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def _lines(stream: IO[str], path: str | os.PathLike[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield number, parse_json(line, f"{path}:{number}", one_line=True)


def parse_json(text: str, where: str, *, one_line: bool = False) -> Any:
    """``json.loads`` with a DataError that begins with ``where`` (file, or file:line where ``one_line``)."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.colno}" if one_line else f"{where}:{error.lineno}:{error.colno}"
        near = text[max(error.pos - 20, 0) : error.pos + 20].strip()
        raise DataError(f"{place}: broken JSON: {error.msg} near {near!r}") from error
    except RecursionError as error:
        raise DataError(f"{where}: broken JSON: nested too deeply") from error
