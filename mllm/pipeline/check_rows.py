"""The rows of a config's sources, checked chunk by chunk: here, or in worker processes that share the sources."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from mllm.dataset.mixture import Source
from mllm.dataset.problems import Problem, Tally, kind_of
from mllm.dataset.row_checks import CheckedRow, check_row, duplicate_key, fits_as_xywh
from mllm.dataset.single_image_conversation import mention_image, turns_with_coordinates
from mllm.errors import DataError
from mllm.grounding.transforms import View
from mllm.pipeline.check_copy import image_folder, item_line
from mllm.structures import Frame, Item

CHUNK = 128
KNOWN_FRAMES = 4096


@dataclass
class CheckedSource:
    """A data set at the bottom of ``data_args.<set_name>`` and the rows of it that are to be checked."""

    set_name: str
    name: str
    source: Source
    indices: Sequence[int]

    @property
    def trains(self) -> bool:
        """Whether it is trained on."""
        return self.set_name == "train"


@dataclass
class Chunk:
    """What was found in some rows of source number ``source``; its columns are what is compared between rows.

    ``keys`` tells equal conversations (0: a row that fails), ``image_keys`` and ``image_rows`` the images and where
    they stand. ``lines`` and ``dropped`` are for a clean copy.
    """

    source: int
    rows: int = 0
    failed: int = 0
    stopping: int = 0
    with_places: int = 0
    xywh: int = 0
    tally: Tally = field(default_factory=Tally)
    keys: Any = ()
    image_keys: Any = ()
    image_rows: Any = ()
    lines: list[str] = field(default_factory=list)
    dropped: list[Problem] = field(default_factory=list)


class RowChecker:
    """Checks rows as the processor's model would read them; ``copy_to`` asks for the lines of a clean copy."""

    def __init__(
        self, sources: Sequence[CheckedSource], processor: Any, *, decode: bool = False, copy_to: str | None = None
    ) -> None:
        self.sources = sources
        self.processor = processor
        self.decode = decode
        self.copy_to = copy_to
        self._frames: dict[tuple[tuple[int, int], bool], Frame] = {}

    def chunk(self, number: int, start: int) -> Chunk:
        """The rows from ``start`` on in the list of source ``number``."""
        one, found = self.sources[number], Chunk(number)
        keys, images = [], []
        for index in one.indices[start : start + CHUNK]:
            row = check_row(one.source.dataset, int(index), decode=self.decode)
            line = self._line(one, row, int(index))
            if row.item and not row.failed:
                self._check_text(row, one.trains)
            _count(found, row)
            keys.append(0 if row.failed else _number(duplicate_key(row, one.source.dataset, int(index))))
            images += [(_number(digest[:8]), int(index)) for digest in row.digests]
            if line is not None and not row.failed:
                found.lines.append(line)
        found.keys = np.array(keys, dtype=np.uint64)
        found.image_keys = np.array([key for key, _ in images], dtype=np.uint64)
        found.image_rows = np.array([index for _, index in images], dtype=np.int64)
        return found

    def _line(self, one: CheckedSource, row: CheckedRow, index: int) -> str | None:
        if self.copy_to is None or row.failed or row.item is None:
            return None
        return item_line(row, image_folder(self.copy_to, one.set_name, one.name), index)

    def _check_text(self, row: CheckedRow, trains: bool) -> None:
        item = row.item
        mention_image(item, row.place)
        try:
            frames = [self._frame(image.size, row.has_places) for image in item.images]
            turns = turns_with_coordinates(item, frames, self.processor.formatter)
            sizes = [frame.canvas_size for frame in frames]
            if not trains:
                self.processor.encode_text(turns, sizes, generation=True)
                return
            encoded = self.processor.check_supervision(turns, sizes)
        except DataError as error:
            row.find_error(error, kind_of(error, "cannot be encoded"))
            return
        if not encoded.answer_tokens:
            fault = "the answers are empty or cut off by conversation.max_length"
            row.find("nothing trained", _last_answer(item), fault)
        elif encoded.truncated:
            fault = f"longer than conversation.max_length={self.processor.max_length}"
            row.find("cut by max_length", _last_answer(item), fault)

    def _frame(self, image_size: tuple[int, int], has_places: bool) -> Frame:
        """Where an image of this size lies on the canvas; its pixels do not matter."""
        key = image_size, has_places
        if key not in self._frames:
            if len(self._frames) >= KNOWN_FRAMES:
                self._frames.clear()
            view = View.of(Image.new("RGB", image_size), [(0.0, 0.0, 1.0, 1.0)] if has_places else [])
            for transform in self.processor.transforms:
                view = transform(view, random.Random(0))
            self._frames[key] = view.frame
        return self._frames[key]


def _count(found: Chunk, row: CheckedRow) -> None:
    found.rows += 1
    found.failed += row.failed
    found.stopping += any(problem.stops for problem in row.problems)
    found.with_places += row.has_places
    boxes = row.boxes
    found.xywh += bool(boxes) and all(fits_as_xywh(box, size) for box, size in boxes)
    found.tally.add_row(row.problems)
    if row.failed:
        found.dropped += [problem for problem in row.problems if problem.severity == "error"]


def _last_answer(item: Item) -> str:
    return f"conversations[{len(item.conversations) - 1}]"


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little") or 1


_checker: RowChecker | None = None


def _start_worker(checker: RowChecker) -> None:
    global _checker
    # Ctrl-C reaches every process of the terminal; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _checker = checker


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(number: int, start: int) -> Chunk:
    return _checker.chunk(number, start)


def checked_chunks(checker: RowChecker, workers: int) -> Iterator[Chunk]:
    """The chunks of all sources in their order, whatever the number of worker processes; 1 checks in this one."""
    tasks = [(i, start) for i, one in enumerate(checker.sources) for start in range(0, len(one.indices), CHUNK)]
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from (checker.chunk(*task) for task in tasks)
        return
    # The copies of the tokenizer say so at length otherwise.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(checker,))
    try:
        yield from _in_order(pool, tasks, ahead=4 * workers)
    except BrokenProcessPool as error:
        fault = "a worker process was ended from outside, perhaps for want of memory"
        raise DataError(f"{fault}; try fewer --workers") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, tasks: Iterable[tuple[int, int]], ahead: int) -> Iterator[Chunk]:
    """Results in the order of the tasks; only ``ahead`` of them are under way or wait to be taken."""
    waiting: deque[Future[Chunk]] = deque()
    for task in tasks:
        waiting.append(pool.submit(_work, *task))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
