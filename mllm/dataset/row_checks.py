"""What can be wrong with one row of a data set, found without a model: the row, its images, its conversation, boxes."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from PIL import Image

from mllm.dataset.base import RowDataset
from mllm.dataset.mixture import item_of
from mllm.dataset.problems import CRASH, ERROR, Problem, kind_of
from mllm.errors import DataError, UserError
from mllm.grounding.geometry import box_area
from mllm.structures import Item, item_faults
from mllm.utils.storage import OpenedImage, header_only

# What a data set may raise for a row that it did not expect; a run ends with a traceback.
_CRASHES = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_FIELD = re.compile(r"(?:conversations|target)(?:\[\d+\]|\.\w+)+|(?<=field ')\w+|(?<=^')\w+(?=' must)")
_COLUMN = re.compile(r"^:(\d+): ")
_IMAGE_KINDS = ("missing file", "path outside its folder", "broken image", "huge image", "turned image")


@dataclass
class CheckedRow:
    """A row with its problems; ``item`` is None where the data set gives none.

    ``images`` tells of each image of the item the file or other origin it was read from, "" for a drawn one.
    """

    place: str
    problems: list[Problem] = field(default_factory=list)
    item: Item | None = None
    images: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a run would fail on it or lose it."""
        return any(problem.severity == ERROR for problem in self.problems)

    @property
    def boxes(self) -> list[tuple[Sequence[float], tuple[int, int]]]:
        """Each box with the size of its image."""
        return list(_boxes(self.item)) if self.item else []

    @property
    def has_places(self) -> bool:
        """Whether there are boxes or points."""
        return bool(self.item and (self.item.target.boxes or self.item.target.points))

    def find(self, kind: str, name: str, message: str) -> None:
        """Note a problem at the field ``name``."""
        self.problems.append(Problem(kind, f"{self.place}:{name}" if name else self.place, message))

    def find_error(self, error: Exception, kind: str) -> None:
        """Note an error; its field is read out of its sentence."""
        message = _COLUMN.sub(r"column \1: ", str(error).removeprefix(self.place)).lstrip(": ")
        found = _FIELD.search(message)
        name = "image" if kind in _IMAGE_KINDS else found[0] if found else ""
        self.find(kind, name, re.sub(rf"^{re.escape(name)}( = |: )", "", message) if name else message)


def check_row(dataset: Any, index: int, *, decode: bool = False) -> CheckedRow:
    """The row as the first epoch sees it; images by their header, with ``decode`` all their pixels."""
    with header_only(decode=decode) as opened:
        try:
            item = _item(dataset, index)
        except UserError as error:
            row = CheckedRow(place_of(dataset, index))
            row.find_error(error, kind_of(error) if isinstance(error, DataError) else CRASH)
            return row
        except _CRASHES as error:
            if not decode:  # It may have met in the pixels what a run would have told when it opened the image.
                return check_row(dataset, index, decode=True)
            row = CheckedRow(place_of(dataset, index))
            row.find(CRASH, "", f"{type(error).__name__}: {error}")
            return row
    row = CheckedRow(item.meta.get("place") or place_of(dataset, index), item=item)
    _check_images(row, opened)
    for fault in item_faults(item):
        row.find_error(fault, fault.kind)
    _check_places(row)
    return row


def duplicate_key(row: CheckedRow, dataset: Any, index: int) -> bytes:
    """Equal for rows of a source that train the same on the same images.

    The words of a question template do not count: where the data set gives a truth its questions are left out, else
    those of a set with templates are drawn anew, alike for all rows.
    """
    item = row.item
    turns = [(turn.role, turn.text) for turn in item.conversations if turn.role == "gpt" or not item.truth]
    if not item.truth and getattr(dataset, "questions", None) is not None and isinstance(dataset, RowDataset):
        with header_only(), suppress(UserError):
            turns = dataset.build(dataset.rows[index], random.Random(0))["conversations"]
    told = [turns, item.target.boxes, item.target.points, item.truth]
    text = json.dumps(told, sort_keys=True, default=str, ensure_ascii=False)
    return blake2b(b"".join(row.digests) + text.encode("utf-8", "replace"), digest_size=8).digest()


def _item(dataset: Any, index: int) -> Item:
    raw = item_of(dataset, index, 0)
    item = raw if isinstance(raw, Item) else Item.from_dict(raw)
    for number, image in enumerate(item.images):
        if not isinstance(image, Image.Image):
            raise TypeError(f"images[{number}]: expected a PIL image, got {type(image).__name__}")
    return item


def place_of(dataset: Any, index: int) -> str:
    """``file:row`` of a row, also of one that cannot be parsed; else the data set's name and the index."""
    rows, here = getattr(dataset, "rows", None), index
    try:
        return rows[here].place
    except (*_CRASHES, UserError):
        pass
    while hasattr(rows, "rows"):
        here = int(rows.positions[here]) if hasattr(rows, "positions") else here
        rows = rows.rows
    return rows.place(here) if hasattr(rows, "place") else f"{type(dataset).__name__}[{index}]"


def _check_images(row: CheckedRow, opened: Sequence[OpenedImage]) -> None:
    known = {id(one.image): one for one in opened}
    for number, image in enumerate(row.item.images):
        one = known.get(id(image))
        row.images.append(one.where if one else "")
        row.digests.append(one.digest if one else blake2b(image.tobytes(), digest_size=16).digest())
        told = _format_of(one.where) if one else None
        if one and told and told != one.format and (told, one.format) != ("JPEG", "MPO"):
            name = "image" if len(row.item.images) == 1 else f"images[{number}]"
            row.find("wrong extension", name, f"{one.where}: is {one.format}, its name says {told}")


def _format_of(path: str) -> str | None:
    Image.init()
    return Image.registered_extensions().get(os.path.splitext(path)[1].lower())


def _check_places(row: CheckedRow) -> None:
    faulty = {problem.place for problem in row.problems if problem.kind == "reversed box"}
    for number, (box, image_size) in enumerate(row.boxes):
        name = f"target.boxes[{number}]"
        if f"{row.place}:{name}" in faulty:
            if fits_as_xywh(box, image_size):
                row.find("looks like xywh", name, f"{list(box)} lies in the image as (x, y, width, height)")
        elif box_area(box) == 0:
            row.find("empty box", name, f"{list(box)} has no area")
    points = row.item.target.points
    largest = max((max(size) for size in _sizes(row.item)), default=0)
    if points and largest > 4 and all(0 < max(point) <= 1 for point in points):
        row.find("normalised point", "target.points[0]", f"{list(points[0])} looks normalised; expected pixels")


def fits_as_xywh(box: Sequence[float], image_size: tuple[int, int]) -> bool:
    """Whether ``(x, y, width, height)`` would lie in the image."""
    return box[0] + box[2] <= image_size[0] + 1 and box[1] + box[3] <= image_size[1] + 1


def _boxes(item: Item) -> Iterator[tuple[Sequence[float], tuple[int, int]]]:
    owners, sizes = item.target.image_index, _sizes(item)
    for number, box in enumerate(item.target.boxes):
        owner = owners[number] if number < len(owners) else 0
        if 0 <= owner < len(sizes):
            yield box, sizes[owner]


def _sizes(item: Item) -> list[tuple[int, int]]:
    return [image.size for image in item.images]
