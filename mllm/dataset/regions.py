"""Regions with an expression, whatever file they come from: expression → box (REC) and box → expression (REG).

A source gives rows with ``img_path``, ``expression`` and ``bbox``; it derives from ``RECDataset`` or ``REGDataset`` and
writes no more than its ``__init__``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.joins import SelectedRows
from mllm.dataset.rows import Row
from mllm.dataset.tasks import check_choice, exchange, text_field
from mllm.errors import ConfigError, DataError
from mllm.grounding.geometry import clip_box, xywh_to_xyxy
from mllm.structures import BOXES_PLACEHOLDER, IMAGE_PLACEHOLDER, Box

META = ("ref_id", "region_id")


def _from_normalized(box: Sequence[float], image_size: tuple[int, int]) -> list[float]:
    if max(box) > 1:
        raise DataError(f"bbox {list(box)} is not in [0, 1] although bbox_format='normalized_xyxy'")
    width, height = image_size
    return [box[0] * width, box[1] * height, box[2] * width, box[3] * height]


BBOX_FORMATS = {
    "xyxy": lambda box, image_size: box,
    "xywh": lambda box, image_size: xywh_to_xyxy(box),
    "normalized_xyxy": _from_normalized,
}


class RegionDataset(RowDataset):
    """Base of data sets over rows of one image, one expression and one box.

    Args:
        rows: with ``img_path``, ``expression``, ``bbox``; ``dataset_name``, ``image_id``, ``ref_id`` and ``region_id``
            go to ``meta`` where a row has them, ``references`` are other expressions for the same box, ``other_boxes``
            (xyxy in pixels) other objects of the image.
        bbox_format: what ``bbox`` holds: ``xyxy`` or ``xywh`` in pixels, or ``normalized_xyxy`` in [0, 1].
        clip: cut boxes at the image's edges; one that lies outside altogether stays an error.
        options: as for ``RowDataset``.
    """

    def __init__(self, rows: Sequence[Row], *, bbox_format: str = "xyxy", clip: bool = False, **options: Any) -> None:
        check_choice(self, "bbox_format", bbox_format, tuple(BBOX_FORMATS))
        super().__init__(rows, **options)
        self.bbox_format = bbox_format
        self.clip = clip

    def box(self, row: Row, image_size: tuple[int, int]) -> Box:
        """The box in pixels of the image of ``(width, height)``."""
        box = BBOX_FORMATS[self.bbox_format](four_numbers(row, "bbox"), image_size)
        if not self.clip:
            return tuple(box)
        clipped = clip_box(box, image_size)
        if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
            fault = f"bbox {list(box)} lies outside the {image_size[0]}x{image_size[1]} image"
            raise DataError(fault, kind="outside the image")
        return clipped

    def meta(self, row: Row) -> dict[str, Any]:
        """Where the row comes from."""
        meta = {
            "source": row.get("dataset_name", type(self).__name__),
            "image_id": row.get("image_id", row["img_path"]),
        }
        return {**meta, **{key: row[key] for key in META if key in row}}


class RECDataset(RegionDataset):
    """Base of referring expression comprehension: the expression is asked for, the box is the answer."""

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        questions: str | list[str] = "rec",
        answer: str = "Answer: <boxes> .",
        **options: Any,
    ) -> None:
        super().__init__(rows, questions=questions, placeholders=("<expr>", IMAGE_PLACEHOLDER), **options)
        if answer.count(BOXES_PLACEHOLDER) != 1:
            raise ConfigError(f"{type(self).__name__}: answer={answer!r}; expected <boxes> in it exactly once")
        self.answer = answer

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One expression, its image and its box."""
        image, said = self.image(row["img_path"]), expression(row)
        box = self.box(row, image.size)
        turns = exchange(self.ask(rng, expr=said), self.answer)
        turns[1]["boxes_seq"] = [[0]]
        truth = {"boxes": [list(box)], "expression": said}
        return {
            "image": image,
            "target": {"boxes": [box]},
            "conversations": turns,
            "truth": {**truth, "other_boxes": row["other_boxes"]} if "other_boxes" in row else truth,
            "meta": self.meta(row),
        }


class REGDataset(RegionDataset):
    """Base of referring expression generation: the box stands in the question, the expression is the answer.

    ``caption_min_words`` and ``caption_max_words`` (both inclusive) leave out rows whose expression is shorter or
    longer; with either of them every row is read once at the start.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        questions: str | list[str] = "reg",
        caption_min_words: int | None = None,
        caption_max_words: int | None = None,
        **options: Any,
    ) -> None:
        if caption_min_words is not None or caption_max_words is not None:
            low, high = caption_min_words or 0, caption_max_words if caption_max_words is not None else float("inf")
            if low > high:
                raise ConfigError(f"{type(self).__name__}: caption_min_words={low} is above caption_max_words={high}")
            rows = SelectedRows.where(rows, lambda row: low <= len(expression(row).split()) <= high)
        super().__init__(rows, questions=questions, placeholders=("<objs>", IMAGE_PLACEHOLDER), **options)

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One box, its image and its expression."""
        image, said = self.image(row["img_path"]), expression(row)
        box = self.box(row, image.size)
        turns = exchange(self.ask(rng, objs=BOXES_PLACEHOLDER), said)
        turns[0]["boxes_seq"] = [[0]]
        return {
            "image": image,
            "target": {"boxes": [box]},
            "conversations": turns,
            "truth": {"references": list(row.get("references", [said])), "boxes": [list(box)]},
            "meta": self.meta(row),
        }


def expression(row: Row) -> str:
    """The row's expression without white space around it; DataError if it is empty."""
    text = text_field(row, "expression").strip()
    if not text:
        raise DataError(f"{row.place}: field 'expression' is empty")
    return text


def four_numbers(row: Row, key: str) -> Sequence[float]:
    """The four numbers in field ``key``."""
    values = row[key]
    good = isinstance(values, (list, tuple)) and len(values) == 4
    if not good or not all(type(value) in (int, float) for value in values):
        raise DataError(f"{row.place}: field {key!r} must be four numbers, got {values!r:.80}")
    return values
