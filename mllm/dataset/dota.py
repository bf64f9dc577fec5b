"""DOTA: oriented boxes of objects in aerial images; a category is asked for, the hulls of its boxes are the answer.

Layout: github CAPTAIN-WHU/DOTA_devkit (Xia et al., CVPR 2018): ``labelTxt/<image>.txt`` with the lines
``imagesource:…`` and ``gsd:…``, then ``x1 y1 x2 y2 x3 y3 x4 y4 category difficult`` in pixels.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.rows import Row
from mllm.dataset.tasks import exchange
from mllm.errors import ConfigError, DataError, choices
from mllm.grounding.geometry import box_area, clip_box, enclosing_box
from mllm.registry import DATASETS
from mllm.structures import BOXES_PLACEHOLDER, Box
from mllm.utils.storage import file_names, join, read_text, resolve_path

HEADER = ("imagesource:", "gsd:")
CHARACTERS_PER_BOX = 24


@dataclass(frozen=True)
class OrientedBox:
    """One object of a label file: its four corners (x, y) in pixels, in the order of the file."""

    corners: tuple[float, ...]
    category: str
    difficult: bool

    @property
    def hull(self) -> Box:
        """The smallest upright box that holds the four corners."""
        xs, ys = self.corners[0::2], self.corners[1::2]
        return enclosing_box([(x, y, x, y) for x, y in zip(xs, ys, strict=True)])


@DATASETS.register_module()
class DOTADetection(RowDataset):
    """One item for each image and category: the category in the question, all its boxes in the answer, left to right.

    The target holds the hulls, clipped to the image; the truth holds hulls (``boxes``), corners (``oriented_boxes``)
    and ``difficult`` in the same order. Objects without area inside the image are left out and counted in
    ``meta["left_out"]``. ``dropped`` counts, by category, the items that had more than ``max_boxes``.

    Args:
        label_root: the folder of the label files.
        image_root: the folder of the images, called as the label files.
        image_suffix: the ending of the images' names.
        categories: what to ask for, as the files write it (``small-vehicle``); all by default.
        skip_difficult: leave out what is marked difficult.
        max_boxes: leave out items with more boxes than an answer can hold.
        questions: templates with ``<category>`` and ``<image>``.
        answer: the answer's text.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        label_root: str,
        image_root: str,
        image_suffix: str = ".png",
        categories: Sequence[str] | None = None,
        skip_difficult: bool = False,
        max_boxes: int | None = None,
        questions: str | list[str] = "detection",
        answer: str = BOXES_PLACEHOLDER,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        folder = resolve_path(label_root)
        paths = [join(folder, name) for name in file_names(folder, ".txt")]
        if not paths:
            raise DataError(f"no label files (*.txt) in {folder!r}; check label_root or set MLLM_DATA")
        self.image_suffix, self.skip_difficult, self.answer = image_suffix, skip_difficult, answer
        self.dropped: Counter[str] = Counter()
        rows = self._rows(paths, categories, max_boxes)
        super().__init__(
            rows,
            image_root=image_root,
            questions=questions,
            placeholders=("<category>", "<image>"),
            exif=exif,
            seed=seed,
            files=paths,
        )

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One image and one category."""
        objects, ground_sample_distance = read_labels(row["path"])
        wanted = sorted(self._wanted(objects)[row["category"]], key=lambda one: one.hull)
        img_path = Path(row["path"]).stem + self.image_suffix
        image = self.image(img_path)
        hulls = [clip_box(one.hull, image.size) for one in wanted]
        seen = [i for i, hull in enumerate(hulls) if box_area(hull) > 0]
        if not seen:
            raise DataError(f"{row['path']}: no {row['category']} lies inside the image {img_path!r} {image.size}")
        boxes = [list(hulls[i]) for i in seen]
        question = self.ask(rng, category=row["category"].replace("-", " "))
        turns = exchange(question, self.answer)
        turns[1]["boxes_seq"] = [list(range(len(boxes)))]
        meta = {"source": type(self).__name__, "image_id": img_path, "category": row["category"]}
        meta.update({"left_out": len(hulls) - len(seen)} if len(seen) < len(hulls) else {})
        meta.update({} if ground_sample_distance is None else {"gsd": ground_sample_distance})
        return {
            "image": image,
            "target": {"boxes": boxes},
            "conversations": turns,
            "truth": {
                "boxes": boxes,
                "oriented_boxes": [list(wanted[i].corners) for i in seen],
                "difficult": [wanted[i].difficult for i in seen],
            },
            "meta": meta,
        }

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of all boxes as text, one image)."""
        return self.rows[index]["count"] * CHARACTERS_PER_BOX, 1

    def _rows(self, paths: Sequence[str], categories: Sequence[str] | None, max_boxes: int | None) -> list[Row]:
        rows, present = [], set()
        for path in paths:
            for category, objects in self._wanted(read_labels(path)[0]).items():
                present.add(category)
                if categories is not None and category not in categories:
                    continue
                if max_boxes is not None and len(objects) > max_boxes:
                    self.dropped[category] += 1
                    continue
                rows.append(Row({"path": path, "category": category, "count": len(objects)}, path))
        for name in categories or ():
            if name not in present:
                raise ConfigError(f"DOTADetection: no object of category {name!r}; {choices(str(name), present)}")
        return rows

    def _wanted(self, objects: Sequence[OrientedBox]) -> dict[str, list[OrientedBox]]:
        wanted: dict[str, list[OrientedBox]] = {}
        for one in objects:
            if not (self.skip_difficult and one.difficult):
                wanted.setdefault(one.category, []).append(one)
        return wanted


def read_labels(path: str) -> tuple[list[OrientedBox], float | None]:
    """The objects of one label file and its ground sample distance in metres a pixel, None where it is not known."""
    objects, distance = [], None
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        line = line.strip()
        if line.lower().startswith(HEADER):
            name, _, value = line.partition(":")
            distance = _number(value) if name.lower() == "gsd" else distance
        elif line:
            objects.append(_object(line.split(), f"{path}:{number}"))
    return objects, distance


def _object(fields: list[str], place: str) -> OrientedBox:
    corners = [_number(value) for value in fields[:8]]
    if len(fields) not in (9, 10) or None in corners or fields[9:] not in ([], ["0"], ["1"], ["2"]):
        shown = " ".join(fields)
        raise DataError(f"{place}: expected 'x1 y1 x2 y2 x3 y3 x4 y4 category difficult', got {shown!r:.80}")
    return OrientedBox(tuple(corners), fields[8], fields[9:] not in ([], ["0"]))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
