"""Referring expression comprehension: RefCOCO, RefCOCO+, RefCOCOg in the REFER layout, and any JSON-lines file of it.

Layouts: github lichengunc/refer (``refs(splitBy).p`` + ``instances.json``, boxes xywh) and Shikra's JSON lines
(arXiv 2306.15195: ``img_path, expression, bbox`` xyxy in pixels).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from mllm.dataset.base import JsonlDataset, RowDataset
from mllm.dataset.rows import ListRows, Row
from mllm.errors import ConfigError, DataError, choices
from mllm.grounding.geometry import xywh_to_xyxy
from mllm.registry import DATASETS
from mllm.utils.files import read_json
from mllm.utils.storage import resolve_path
from mllm.utils.unpickle import load_plain_pickle

SPLITS = {
    ("refcoco", "unc"): ("train", "val", "testA", "testB"),
    ("refcoco+", "unc"): ("train", "val", "testA", "testB"),
    ("refcocog", "umd"): ("train", "val", "test"),
    ("refcocog", "google"): ("train", "val"),
    ("refclef", "unc"): ("train", "val", "testA", "testB", "testC"),
    ("refclef", "berkeley"): ("train", "val", "test"),
}


def rec_item(image: Any, expression: str, box: Any, question: str, answer: str) -> dict[str, Any]:
    """The item of one expression and its box (xyxy, pixels)."""
    return {
        "image": image,
        "target": {"boxes": [box]},
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": answer, "boxes_seq": [[0]]},
        ],
        "truth": {"boxes": [list(box)], "expression": expression},
    }


@DATASETS.register_module()
class RECJsonl(JsonlDataset):
    """Expressions from JSON lines ``{"img_path", "expression", "bbox"}``.

    ``bbox_format`` says what ``bbox`` holds: ``xyxy`` or ``xywh`` in pixels, or ``normalized_xyxy`` in [0, 1]
    (the precursor's ``REC_ref4-genome``); it is declared, never guessed.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        questions: str | list[str] = "rec",
        answer: str = "Answer: <boxes> .",
        bbox_format: str = "xyxy",
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        if bbox_format not in BBOX_FORMATS:
            raise ConfigError(f"RECJsonl: bbox_format={bbox_format!r}; {choices(str(bbox_format), BBOX_FORMATS)}")
        placeholders = ("<expr>", "<image>")
        super().__init__(
            path, image_root=image_root, questions=questions, placeholders=placeholders, seed=seed, exif=exif
        )
        self.answer = answer
        self.bbox_format = bbox_format

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One expression, its image and its box."""
        image = self.image(row["img_path"])
        box = BBOX_FORMATS[self.bbox_format](_four(row["bbox"]), image.size)
        expression = row["expression"].strip()
        item = rec_item(image, expression, box, self.ask(rng, expr=expression), self.answer)
        item["meta"] = {"source": row.get("dataset_name", "RECJsonl"), "image_id": row["img_path"]}
        return item


@DATASETS.register_module()
class RefCOCO(RowDataset):
    """RefCOCO, RefCOCO+, RefCOCOg and RefCLEF in the layout of their authors; one row per sentence.

    ``root/<name>/refs(<split_by>).p`` and ``instances.json``; images ``COCO_train2014_<id>.jpg`` (12 digits).
    Several splits are joined by ``+``.
    """

    def __init__(
        self,
        root: str,
        image_root: str,
        name: str = "refcoco",
        split_by: str = "unc",
        split: str = "train",
        questions: str | list[str] = "rec",
        answer: str = "Answer: <boxes> .",
        seed: int = 0,
    ) -> None:
        self.answer = answer
        self.name = name
        folder = Path(resolve_path(root)) / name
        rows = ListRows(_refer_rows(folder, name, split_by, split), f"{folder}/refs({split_by}).p {split}")
        super().__init__(
            rows,
            image_root=image_root,
            questions=questions,
            placeholders=("<expr>", "<image>"),
            seed=seed,
            files=[str(folder / f"refs({split_by}).p"), str(folder / "instances.json")],
        )

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One sentence, its image and its box."""
        question = self.ask(rng, expr=row["expression"])
        item = rec_item(self.image(row["img_path"]), row["expression"], row["bbox"], question, self.answer)
        item["meta"] = {"source": self.name, "image_id": row["img_path"], "ref_id": row["ref_id"]}
        return item


def _refer_rows(folder: Path, name: str, split_by: str, split: str) -> list[dict[str, Any]]:
    known = SPLITS.get((name, split_by))
    if known is None:
        pairs = [f"{one} ({by})" for one, by in SPLITS]
        raise ConfigError(f"RefCOCO: no name={name!r} with split_by={split_by!r}; {choices(name, pairs)}")
    wanted = split.split("+")
    for one in wanted:
        if one not in known:
            raise ConfigError(f"RefCOCO: {name} ({split_by}) has no split {one!r}; {choices(one, known)}")
    refs = load_plain_pickle(folder / f"refs({split_by}).p")
    boxes = {one["id"]: one["bbox"] for one in read_json(folder / "instances.json")["annotations"]}
    rows = []
    for part in wanted:
        rows += [row for ref in refs if ref["split"] == part for row in _sentences(ref, boxes, folder, name)]
    return rows


def _sentences(ref: dict[str, Any], boxes: dict[int, list[float]], folder: Path, name: str) -> list[dict[str, Any]]:
    if ref["ann_id"] not in boxes:
        raise DataError(f"{folder}: ref {ref['ref_id']} names annotation {ref['ann_id']}, absent from instances.json")
    file_name = f"{ref['image_id']}.jpg" if name == "refclef" else f"COCO_train2014_{ref['image_id']:012d}.jpg"
    box = xywh_to_xyxy(boxes[ref["ann_id"]])
    return [
        {"img_path": file_name, "expression": sentence["sent"].strip(), "bbox": box, "ref_id": ref["ref_id"]}
        for sentence in ref["sentences"]
    ]


def _four(values: Any) -> Any:
    if (
        not isinstance(values, (list, tuple))
        or len(values) != 4
        or not all(isinstance(v, (int, float)) for v in values)
    ):
        raise DataError(f"bbox: expected four numbers, got {values!r:.80}")
    return values


def _from_normalized(box: Any, image_size: tuple[int, int]) -> list[float]:
    if max(box) > 1:
        raise DataError(f"bbox {list(box)} is not in [0, 1] although bbox_format='normalized_xyxy'")
    width, height = image_size
    return [box[0] * width, box[1] * height, box[2] * width, box[3] * height]


BBOX_FORMATS = {
    "xyxy": lambda box, image_size: box,
    "xywh": lambda box, image_size: xywh_to_xyxy(box),
    "normalized_xyxy": _from_normalized,
}
