"""The part files of a predictions file in the making: what every rank has written, and what it was made of.

``X_predictions.parts.json`` names what the parts were made of; ``X_predictions.rankK.part`` holds the records that rank
K has got, in the order in which they came. A run that was killed at any byte leaves them; the next one goes on from
them, with any number of processes, if it is made of the same.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mllm.engine.made_of import differing
from mllm.engine.records import in_order, read_records
from mllm.structures import Record
from mllm.utils.files import atomic_open, atomic_write, read_json
from mllm.utils.logging import get_logger

SYNC_SECONDS = 30.0
logger = get_logger(__name__)


class Parts:
    """The parts of the predictions file ``path``; ``start``, ``merge``, ``remove`` are for the main process alone."""

    def __init__(self, path: Path, made_of: Mapping[str, str]) -> None:
        self.path = path
        self.made_of = dict(made_of)
        self.header = path.with_name(f"{path.stem}.parts.json")

    @property
    def files(self) -> list[Path]:
        """The part files that are there, of however many ranks."""
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.stem)}.rank*.part"))

    def start(self) -> set[int]:
        """The indices whose records are there; parts of something else are discarded with a line that says of what.

        DataError that names file and line where a part is broken elsewhere than in its last line, which a killed
        process may have left half written: that one is cut off.
        """
        found = read_json(self.header) if self.header.is_file() else {}
        other = differing(found, self.made_of)
        if not other:
            for file in self.files:
                cut_torn_line(file)
            return {record.index for file in self.files for record in read_records(file)}
        if self.files:
            of = f"of other {' and '.join(other)}" if found else "of unknown origin"
            logger.warning("%s: predictions %s are discarded", self.path.name, of)
        self.remove()
        atomic_write(self.header, json.dumps(self.made_of, indent=2) + "\n")
        return set()

    @contextmanager
    def writer(self, rank: int) -> Iterator[PartWriter]:
        """What appends to the part of ``rank``."""
        with self.path.with_name(f"{self.path.stem}.rank{rank}.part").open("a", encoding="utf-8") as file:
            writer = PartWriter(file)
            try:
                yield writer
            finally:
                writer.sync()

    def merge(self, expected: int) -> None:
        """Join the parts into ``path`` by index and remove them; DataError unless all of ``range(expected)`` is there.

        An index may stand in several parts: a batch of which a record was lost is generated again.
        """
        once: dict[int, Record] = {}
        for file in self.files:
            for record in read_records(file):
                once.setdefault(record.index, record)
        records = in_order(list(once.values()), expected, str(self.path), advice="; run the prediction again")
        with atomic_open(self.path) as stream:
            stream.writelines(line_of(record) for record in records)
        self.remove()

    def remove(self) -> None:
        """Delete the parts, then what says of what they are: no moment leaves parts below another header."""
        for file in self.files:
            file.unlink()
        self.header.unlink(missing_ok=True)


class PartWriter:
    """Appends records to an open part file.

    What is flushed survives the death of the process; only a power cut or a crashed node needs ``fsync``, which can
    take a second on a cluster's disks: once in ``SYNC_SECONDS`` costs little and bounds what is lost.
    """

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.synced = time.monotonic()

    def write(self, records: Sequence[Record]) -> None:
        """Append the records of one batch."""
        self.file.write("".join(map(line_of, records)))
        self.file.flush()
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Have the disk hold all that was written."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.synced = time.monotonic()


def line_of(record: Record) -> str:
    """The record as a line of a predictions file."""
    return json.dumps(record.to_dict(), ensure_ascii=False) + "\n"


def cut_torn_line(path: Path) -> None:
    """Drop what follows the last line break."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
