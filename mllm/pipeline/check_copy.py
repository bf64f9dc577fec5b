"""A clean copy of checked data: the good rows of each source as item JSON lines, and a log of what was left out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mllm.dataset.row_checks import CheckedRow
from mllm.errors import ConfigError, DataError
from mllm.structures import Item, Turn
from mllm.utils.files import atomic_open
from mllm.utils.storage import is_remote

if TYPE_CHECKING:
    from mllm.pipeline.check_rows import CheckedSource, Chunk

LOG = "dropped.log"


class CleanCopy:
    """Writes ``<folder>/<set>-<source>.jsonl`` and ``dropped.log``; whole or, if the body ends early, not at all.

    ConfigError unless the folder is new or empty: no file that is there already is ever touched.
    """

    def __init__(self, folder: str, sources: Sequence[CheckedSource]) -> None:
        self.folder, self.sources = Path(folder), sources
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ConfigError(f"--fix {folder!r} exists and is not empty; name a new folder")
        self._files: dict[int, IO[str]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> CleanCopy:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = self._stack.enter_context(atomic_open(self.folder / LOG))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, chunk: Chunk) -> None:
        """Write the good rows of a chunk, and what is wrong with the others."""
        one = self.sources[chunk.source]
        if chunk.source not in self._files:
            path = self.folder / f"{_stem(one.set_name, one.name)}.jsonl"
            self._files[chunk.source] = self._stack.enter_context(atomic_open(path))
        self._files[chunk.source].writelines(f"{line}\n" for line in chunk.lines)
        for problem in chunk.dropped:
            sentence = " ".join(problem.message.split())
            self._log.write(f"{one.set_name}/{one.name}\t{problem.place}\t{problem.kind}\t{sentence}\n")

    def configs(self) -> dict[str, dict[str, Any]]:
        """Source → the config of its copy."""
        named = {}
        for one in self.sources:
            path = self.folder / f"{_stem(one.set_name, one.name)}.jsonl"
            exif = getattr(one.source.dataset, "exif", "error")
            named[f"{one.set_name}/{one.name}"] = {
                "type": "ItemJsonl",
                "path": str(path),
                **({} if exif == "error" else {"exif": exif}),
            }
        return named


def image_folder(folder: str, set_name: str, name: str) -> Path:
    """Where the copy of a source keeps images that are no files of their own."""
    return Path(folder) / "images" / _stem(set_name, name)


def item_line(row: CheckedRow, images: Path, index: int) -> str:
    """The item as one line for ``ItemJsonl``; images that were drawn or unpacked are written into ``images``."""
    names = [_image_name(row, number, images, index) for number in range(len(row.item.images))]
    try:
        return json.dumps(_item_row(row.item, names), ensure_ascii=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"{row.place}: truth or meta of the item cannot be written as JSON ({error})") from error


def _image_name(row: CheckedRow, number: int, images: Path, index: int) -> str:
    where = row.images[number]
    if is_remote(where):
        return where
    if os.path.isfile(where):
        return os.path.abspath(where)
    images.mkdir(parents=True, exist_ok=True)
    path = images / f"{index}-{number}.png"
    row.item.images[number].convert("RGB").save(path)
    return os.path.abspath(path)


def _item_row(item: Item, names: Sequence[str]) -> dict[str, Any]:
    target = {key: value for key, value in vars(item.target).items() if value}
    # The copy has places of its own.
    meta = {"origin" if key == "place" else key: value for key, value in item.meta.items()}
    row = {"target": target, "conversations": [_turn_row(turn) for turn in item.conversations]}
    row |= {"truth": item.truth, "meta": meta}
    image = {} if not names else {"image": names[0]} if len(names) == 1 else {"images": list(names)}
    return {**image, **{key: value for key, value in row.items() if value}}


def _turn_row(turn: Turn) -> dict[str, Any]:
    sequences = {"boxes_seq": turn.boxes_seq, "points_seq": turn.points_seq}
    return {"from": turn.role, "value": turn.text, **{key: value for key, value in sequences.items() if value}}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__}: {value!r:.40}")


def _stem(*words: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", "-".join(words)).strip("-")
