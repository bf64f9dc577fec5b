"""Captions of whole images: COCO's layout (arXiv 1504.00325), and JSON lines of an image and a caption."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from mllm.dataset.joins import FieldIndex
from mllm.dataset.rows import JsonRows, Row, open_rows
from mllm.dataset.tasks import PER, CaptionDataset, check_choice, exchange, text_field
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path


class CocoCaptionRows(Sequence):
    """Images with their captions, or captions with their image, joined as they are read.

    ``keep`` leaves annotations out; an image without any is left out too. ``unlabelled`` gives every image of a file
    that may have no annotations, without captions.
    """

    def __init__(
        self, path: str, per: str, keep: Callable[[Row], bool] | None = None, unlabelled: bool = False
    ) -> None:
        self.per = per
        self.images = FieldIndex(JsonRows(path, "images"), "id")
        self.captions = None if unlabelled else FieldIndex(JsonRows(path, "annotations"), "image_id", keep)
        if self.captions is None:
            self.positions = self.images.all_positions()
        elif per == "caption":
            self.positions = self.captions.all_positions()
        else:
            self.positions = self.images.positions_in(self.captions)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Row:
        position = int(self.positions[index])
        if self.captions is None:
            return _image_row(self.images.rows[position], [])
        if self.per == "image":
            image = self.images.rows[position]
            return _image_row(image, self.captions.find_all(image["id"]))
        annotation = self.captions.rows[position]
        row = _image_row(
            self.images.find(annotation["image_id"], annotation.place),
            self.captions.find_all(annotation["image_id"]),
        )
        row["caption"] = row.pop("caption_ids").index(annotation["id"])
        return Row({**row, "caption_id": annotation["id"]}, annotation.place)


class CocoCaptionDataset(CaptionDataset):
    """Base of data sets over ``CocoCaptionRows``; an item of an image without captions ends with the question."""

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One image and, where it has any, one of its captions."""
        values = {key: value for key, value in row.items() if key != "caption_ids"}
        if row["captions"]:
            return super().build(Row(values, row.place), rng)
        meta = {"source": type(self).__name__, "image_id": row["image_id"]}
        return {"image": self.image(row["img_path"]), "conversations": exchange(self.ask(rng)), "meta": meta}

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of the longest caption, one image)."""
        return max(map(len, self.rows[index]["captions"]), default=1), 1


@DATASETS.register_module()
class COCOCaption(CocoCaptionDataset):
    """Captioned images in COCO's layout ``{"images": […], "annotations": [{"id", "image_id", "caption"}]}``.

    Args:
        path: ``captions_train2017.json`` and the like.
        image_root: the folder of the images' ``file_name``.
        per: ``"image"`` gives an item an image, with another of its captions to train on from epoch to epoch, and is
            what evaluation wants; ``"caption"`` an item a caption. The truth holds all captions of the image.
        unlabelled: every image of a file without captions (a test set), to predict on; the items have no answer.
        questions: template set with ``<image>``.
        exif: what to do with turned photographs.
        seed: of the choice of question and caption.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        per: str = "image",
        unlabelled: bool = False,
        questions: str | list[str] = "caption",
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        check_choice(self, "per", per, PER)
        path = resolve_path(path)
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed, "files": [path]}
        super().__init__(CocoCaptionRows(path, per, unlabelled=unlabelled), **options)


@DATASETS.register_module()
class CaptionJsonl(CaptionDataset):
    """Captioned images from JSON lines ``{"img_path", "caption"}``.

    ``per="caption"`` gives an item a line, its caption the only reference. ``per="image"`` gives an item an image with
    the captions of all its lines, and reads every line once at the start.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        per: str = "caption",
        questions: str | list[str] = "caption",
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        check_choice(self, "per", per, PER)
        path = resolve_path(path)
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed, "files": [path]}
        super().__init__(_LineRows(open_rows(path), per), **options)


class _LineRows(Sequence):
    def __init__(self, lines: Sequence[Row], per: str) -> None:
        self.lines = lines
        self.images = FieldIndex(lines, "img_path") if per == "image" else None
        self.positions: Sequence[int] = range(len(lines)) if self.images is None else self.images.first_positions()

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Row:
        line = self.lines[int(self.positions[index])]
        lines = [line] if self.images is None else self.images.find_all(line["img_path"])
        return Row({"img_path": text_field(line, "img_path"), "captions": [_caption(one) for one in lines]}, line.place)


def _image_row(image: Row, annotations: list[Row]) -> Row:
    row: dict[str, Any] = {
        "img_path": text_field(image, "file_name"),
        "image_id": image["id"],
        "captions": [_caption(one) for one in annotations],
        "caption_ids": [one["id"] for one in annotations],
    }
    if any("text_detected" in one for one in annotations):
        row["text_detected"] = any(one.get("text_detected") for one in annotations)
    return Row(row, image.place)


def _caption(row: Row) -> str:
    text = text_field(row, "caption").strip()
    if not text:
        raise DataError(f"{row.place}: field 'caption' is empty")
    return text
