"""The REFER layout of RefCOCO, RefCOCO+, RefCOCOg and RefCLEF (github lichengunc/refer), as rows of regions.

``<root>/<name>/refs(<split_by>).p`` lists the references, each with its sentences and the id of an annotation in
``instances.json``, whose ``bbox`` is xywh. ``file_name`` in a reference is not the name of the image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mllm.dataset.rows import ListRows, Row
from mllm.errors import ConfigError, DataError, choices
from mllm.grounding.geometry import xywh_to_xyxy
from mllm.utils.files import read_json
from mllm.utils.storage import join, resolve_path
from mllm.utils.unpickle import load_plain_pickle

SPLITS = {
    ("refcoco", "unc"): ("train", "val", "testA", "testB"),
    ("refcoco+", "unc"): ("train", "val", "testA", "testB"),
    ("refcocog", "umd"): ("train", "val", "test"),
    ("refcocog", "google"): ("train", "val"),
    ("refclef", "unc"): ("train", "val", "testA", "testB", "testC"),
    ("refclef", "berkeley"): ("train", "val", "test"),
}


class ReferFolder:
    """One data set in the layout of its authors: the splits asked for, joined by ``+``.

    ``held_out`` names splits, ``refcocog/umd/val+test``, none of whose images are to be here: the data sets share
    images, so that the training images of one are test images of another.
    """

    def __init__(self, root: str, name: str, split_by: str, split: str, held_out: Sequence[str] = ()) -> None:
        self.name, self.split = name, split
        self.held_out = [_held_out(root, one) for one in held_out]
        self.folder = join(resolve_path(root), name)
        self.wanted = _splits(name, split_by, split)
        self.refs = join(self.folder, f"refs({split_by}).p")
        self.files = [self.refs, join(self.folder, "instances.json")]

    def rows(self, per: str = "sentence") -> ListRows:
        """A row a sentence, or (``per="ref"``) a row a reference with its first sentence."""
        refs = load_plain_pickle(self.refs)
        absent = {image for folder in self.held_out for image in folder.images()}
        boxes, of_image = {}, defaultdict(list)
        for one in read_json(self.files[1])["annotations"]:
            boxes[one["id"]] = list(xywh_to_xyxy(one["bbox"]))
            if "image_id" in one and not one.get("iscrowd"):
                of_image[one["image_id"]].append(one["id"])
        rows = []
        for part in self.wanted:
            for number, ref in enumerate(refs):
                if ref["split"] == part and ref["image_id"] not in absent:
                    sentences = self._sentences(Row(ref, f"{self.refs}[{number}]"), boxes, of_image)
                    rows += sentences if per == "sentence" else sentences[:1]
        return ListRows(rows, f"{self.refs} {self.split}")

    def images(self) -> set[int]:
        """The ids of the images in the splits."""
        return {ref["image_id"] for ref in load_plain_pickle(self.refs) if ref["split"] in self.wanted}

    def image_name(self, image_id: int) -> str:
        """The file name of an image."""
        return f"{image_id}.jpg" if self.name == "refclef" else f"COCO_train2014_{image_id:012d}.jpg"

    def _sentences(
        self, ref: Row, boxes: dict[int, list[float]], of_image: dict[int, list[int]]
    ) -> list[dict[str, Any]]:
        if ref["ann_id"] not in boxes:
            raise DataError(f"{ref.place}: ann_id {ref['ann_id']!r} of ref {ref['ref_id']} is not in instances.json")
        number = ref["image_id"]
        shared = {
            "img_path": self.image_name(number),
            "bbox": boxes[ref["ann_id"]],
            "dataset_name": self.name,
            "ref_id": ref["ref_id"],
            "references": [sentence["sent"].strip() for sentence in ref["sentences"]],
        }
        if number in of_image:
            shared["other_boxes"] = [boxes[one] for one in of_image[number] if one != ref["ann_id"]]
        return [{**shared, "expression": text} for text in shared["references"]]


def _splits(name: str, split_by: str, split: str) -> list[str]:
    known = SPLITS.get((name, split_by))
    if known is None:
        pairs = [f"{one} ({by})" for one, by in SPLITS]
        raise ConfigError(f"RefCOCO: no name={name!r} with split_by={split_by!r}; {choices(name, pairs)}")
    wanted = split.split("+")
    for one in wanted:
        if one not in known:
            raise ConfigError(f"RefCOCO: {name} ({split_by}) has no split {one!r}; {choices(one, known)}")
    return wanted


def _held_out(root: str, spec: str) -> ReferFolder:
    parts = spec.split("/")
    if len(parts) != 3:
        raise ConfigError(f"held_out={spec!r}: expected 'name/split_by/split+split', as 'refcocog/umd/val+test'")
    return ReferFolder(root, *parts)
