"""Where each row of an annotation file begins: found in one pass, kept between runs, mapped into memory.

The index of a large file is written to ``$MLLM_CACHE`` (default ``work_dirs/.index``), never beside the data; its name
holds the file's path, size and time of change, so that a changed file is indexed anew.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mllm.errors import DataError
from mllm.utils.files import atomic_open
from mllm.utils.storage import cache_folder

CACHED_FROM_BYTES = 4 << 20

# Up to the next bracket that stands outside of any string.
_BRACKET = re.compile(rb'(?:[^"\[\]{}]+|"[^"\\]*(?:\\.[^"\\]*)*")*([\[\]{}])', re.DOTALL)
_NOTHING_BUT_COMMAS = re.compile(rb"[\s,]*")
_OPENING, _CLOSING = b"[{", b"]}"

Buffer = bytes | mmap.mmap


def scan_lines(buffer: Buffer) -> np.ndarray:
    """(2, rows + 1): begin of every line that is not blank, and its number from 1; last the end of the file."""
    starts, numbers = array("q"), array("q")
    position, number, end = 0, 1, len(buffer)
    while position < end:
        newline = buffer.find(b"\n", position)
        stop = end if newline < 0 else newline
        if stop - position > 64 or buffer[position:stop].strip():
            starts.append(position)
            numbers.append(number)
        position, number = stop + 1, number + 1
    return np.array([[*starts, end], [*numbers, number]], dtype=np.int64)


def scan_array(buffer: Buffer, key: str | None, name: str) -> np.ndarray:
    """(1, rows + 1): begin of every object of the array, the top-level one or the one under ``key``; last its end.

    Raises:
        DataError: no such array, an element that is no object, an array that does not end.
    """
    wanted = None if key is None else re.compile(rb'"' + re.escape(key.encode()) + rb'"\s*:\s*$')
    starts, depth, level = array("q"), 0, None
    for before, position, bracket in _brackets(buffer):
        opening = bracket in _OPENING
        if level is None:
            if opening and _begins_array(buffer, before, position, bracket, depth, wanted):
                level = depth + 1
        elif depth == level:
            _only_objects(buffer, before, position, bracket, name, len(starts))
            if not opening:
                return np.array([[*starts, position]], dtype=np.int64)
            starts.append(position)
        depth += 1 if opening else -1
    place = "a JSON array" if key is None else f"a JSON object with an array under {key!r}"
    fault = f"expected {place}" if level is None else f"broken JSON: the array does not end (after row {len(starts)})"
    raise DataError(f"{name}: {fault}")


def _brackets(buffer: Buffer) -> Iterator[tuple[int, int, bytes]]:
    for match in _BRACKET.finditer(buffer):
        yield match.start(), match.start(1), match.group(1)


def _begins_array(
    buffer: Buffer, before: int, position: int, bracket: bytes, depth: int, wanted: re.Pattern[bytes] | None
) -> bool:
    if bracket != b"[":
        return False
    if wanted is None:
        return depth == 0
    return depth == 1 and bool(wanted.search(buffer[before:position]))


def _only_objects(buffer: Buffer, before: int, position: int, bracket: bytes, name: str, row: int) -> None:
    between = buffer[before:position]
    if bracket == b"[" or not _NOTHING_BUT_COMMAS.fullmatch(between):
        found = (bytes(between) + bracket).strip(b" ,\r\n\t")
        raise DataError(f"{name}[{row}]: expected a JSON object, got {found[:60].decode('utf-8', 'replace')!r}")


def cached_index(path: Path, kind: str, scan: Callable[[Buffer], np.ndarray]) -> np.ndarray:
    """What ``scan`` gives for the file, mapped from the index folder where it was found before.

    A folder that cannot be written costs the scan at every start and nothing else.
    """
    state = path.stat()
    if state.st_size < CACHED_FROM_BYTES:
        return scan(path.read_bytes())
    identity = f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{kind}"
    kept = cache_folder() / f"{path.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.npy"
    try:
        return np.load(kept, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        pass
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        found = scan(mapped)
    try:
        with atomic_open(kept, "wb") as stream:
            np.save(stream, found)
        return np.load(kept, mmap_mode="r", allow_pickle=False)
    except OSError:
        return found
