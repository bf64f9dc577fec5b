"""Files of rows written whole: a JSON array with a row a line, or JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mllm.errors import ConfigError
from mllm.utils.files import atomic_open
from mllm.utils.storage import is_remote

SUFFIXES = (".json", ".jsonl")


def check_outputs(paths: Sequence[str | Path], *, overwrite: bool, sources: Sequence[str | Path] = ()) -> None:
    """ConfigError for an output that is there already (unless ``overwrite``), that is a source, or of another kind."""
    for path in map(os.fspath, paths):
        if is_remote(path):
            raise ConfigError(f"output {path!r} is not on this machine; write to a local folder and copy it from there")
        if not path.endswith(SUFFIXES):
            raise ConfigError(f"output {path!r}: expected a name ending in .json (an array) or .jsonl (a row a line)")
        if not os.path.exists(path):
            continue
        if any(os.path.exists(source) and os.path.samefile(path, source) for source in sources):
            raise ConfigError(f"output {path!r} is the file that is read; name another one")
        if not overwrite:
            raise ConfigError(f"output {path!r} exists; --overwrite replaces it")


@contextmanager
def row_writer(path: str | Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that writes a row; ``path`` (``.json`` or ``.jsonl``) appears when the body has ended well."""
    array = os.fspath(path).endswith(".json")
    first = True

    def write(row: Mapping[str, Any]) -> None:
        nonlocal first
        lead = ("[\n" if first else ",\n") if array else ""
        stream.write(lead + dump_row(row) + ("" if array else "\n"))
        first = False

    with atomic_open(path) as stream:
        yield write
        if array:
            stream.write("[]\n" if first else "\n]\n")


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]], total: int | None = None) -> int:
    """Write ``rows`` as they come, with a progress bar on a terminal; gives their number."""
    count = 0
    with row_writer(path) as write:
        for row in tqdm(rows, os.path.basename(path), total, unit=" rows", disable=None):
            write(row)
            count += 1
    return count


def dump_row(row: Mapping[str, Any]) -> str:
    """The row as one line of JSON; letters stand as themselves where UTF-8 can hold them."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row)
    return text
