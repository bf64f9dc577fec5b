"""Referring expression comprehension: RefCOCO, RefCOCO+, RefCOCOg, RefCLEF in the REFER layout, and two JSON forms.

Layouts: github lichengunc/refer (``refs(splitBy).p`` + ``instances.json``, boxes xywh), Shikra's JSON lines
(arXiv 2306.15195: ``img_path, expression, bbox`` xyxy in pixels), and the flat JSON of MiniGPT-4's evaluation files
(github Vision-CAIR/MiniGPT-4, eval_scripts: ``img_id, sents, bbox`` xywh).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mllm.dataset.joins import MappedRows
from mllm.dataset.refer import ReferFolder
from mllm.dataset.regions import RECDataset, four_numbers
from mllm.dataset.rows import Row, open_rows
from mllm.dataset.tasks import text_field
from mllm.errors import DataError
from mllm.grounding.geometry import xywh_to_xyxy
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path

ANSWER = "Answer: <boxes> ."


@DATASETS.register_module()
class RECJsonl(RECDataset):
    """Expressions from JSON lines ``{"img_path", "expression", "bbox"}``.

    ``bbox_format`` says what ``bbox`` holds: ``xyxy`` or ``xywh`` in pixels, or ``normalized_xyxy`` in [0, 1]
    (the precursor's ``REC_ref4-genome``); it is declared, never guessed.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        questions: str | list[str] = "rec",
        answer: str = ANSWER,
        bbox_format: str = "xyxy",
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        path = resolve_path(path)
        options = {"image_root": image_root, "seed": seed, "exif": exif, "files": [path]}
        super().__init__(open_rows(path), questions=questions, answer=answer, bbox_format=bbox_format, **options)


@DATASETS.register_module()
class RefCOCO(RECDataset):
    """RefCOCO, RefCOCO+, RefCOCOg and RefCLEF in the layout of their authors; one row per sentence.

    ``root/<name>/refs(<split_by>).p`` and ``instances.json``; images ``COCO_train2014_<id>.jpg`` (12 digits), those of
    RefCLEF ``<id>.jpg``. Several splits are joined by ``+``. ``held_out`` names splits of these data sets whose images
    are left out, as ``["refcocog/umd/val+test"]``: one's training images are another's test images.
    """

    def __init__(
        self,
        root: str,
        image_root: str,
        name: str = "refcoco",
        split_by: str = "unc",
        split: str = "train",
        held_out: Sequence[str] = (),
        questions: str | list[str] = "rec",
        answer: str = ANSWER,
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        folder = ReferFolder(root, name, split_by, split, held_out)
        options = {"image_root": image_root, "seed": seed, "exif": exif, "files": folder.files}
        super().__init__(folder.rows(), questions=questions, answer=answer, **options)


@DATASETS.register_module()
class RECFlatJson(RECDataset):
    """MiniGPT-4's flat files: an array of ``{"img_id", "sents", "bbox": [x, y, width, height], "height", "width"}``.

    ``img_id`` ``COCO_train2014_000000581282_10`` is reference 10 on the image ``COCO_train2014_000000581282.jpg``.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        questions: str | list[str] = "rec",
        answer: str = ANSWER,
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        path = resolve_path(path)
        options = {"image_root": image_root, "seed": seed, "exif": exif, "files": [path]}
        super().__init__(MappedRows(open_rows(path), _flat_row), questions=questions, answer=answer, **options)


def _flat_row(row: Row) -> dict[str, Any]:
    image_id, _, ref_id = text_field(row, "img_id").rpartition("_")
    if not image_id or not ref_id.isdecimal():
        raise DataError(f"{row.place}: field 'img_id' must be IMAGE_REFERENCE, got {row['img_id']!r}")
    return {
        "img_path": f"{image_id}.jpg",
        "expression": text_field(row, "sents"),
        "bbox": xywh_to_xyxy(four_numbers(row, "bbox")),
        "ref_id": int(ref_id),
    }
