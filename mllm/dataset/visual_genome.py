"""Visual Genome's region descriptions (arXiv 1602.07332) in the official layout, either way round.

``region_descriptions.json`` lists images with their regions; the folder of an image, ``VG_100K`` or ``VG_100K_2``,
stands in ``image_data.json``'s ``url`` alone. Phrases may end in spaces; some regions reach over the image's edge.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mllm.dataset.joins import FieldIndex
from mllm.dataset.rec import ANSWER
from mllm.dataset.regions import RECDataset, REGDataset
from mllm.dataset.rows import JsonRows, Row
from mllm.errors import DataError
from mllm.grounding.geometry import xywh_to_xyxy
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path


class VisualGenomeRegions(Sequence):
    """A row a region; a few numbers an image are held, an image's regions are parsed when one is asked for."""

    def __init__(self, regions: str, image_data: str) -> None:
        self.files = [resolve_path(regions), resolve_path(image_data)]
        self.images = JsonRows(self.files[0])
        self.image_data = FieldIndex(JsonRows(self.files[1]), "image_id")
        self.ends = np.cumsum([len(_regions(image)) for image in self.images], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> Row:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        image = int(np.searchsorted(self.ends, index, side="right"))
        number = index - (int(self.ends[image - 1]) if image else 0)
        found = self.images[image]
        return _region_row(found, number, self._path(found))

    def __iter__(self) -> Iterator[Row]:
        for image in self.images:
            count = len(_regions(image))
            path = self._path(image) if count else ""
            yield from (_region_row(image, number, path) for number in range(count))

    def _path(self, image: Row) -> str:
        found = self.image_data.find(image["id"], image.place)
        folder, name = posixpath.split(urlsplit(str(found["url"])).path)
        folder = posixpath.basename(folder)
        if not folder or not name:
            raise DataError(f"{found.place}: field 'url' must end in FOLDER/NAME.jpg, got {found['url']!r:.80}")
        return f"{folder}/{name}"


@DATASETS.register_module()
class VisualGenomeREC(RECDataset):
    """Region phrase → box; one row per region.

    Args:
        regions: ``region_descriptions.json``.
        image_data: ``image_data.json``.
        image_root: the folder that holds ``VG_100K`` and ``VG_100K_2``.
        clip: cut boxes at the image's edges instead of stopping at those that reach more than a pixel over it.
        questions: template set with ``<expr>`` and ``<image>``.
        answer: the answer's text, with ``<boxes>`` once.
        seed: of the choice of a question.
        exif: what to do with turned photographs.
    """

    def __init__(
        self,
        regions: str,
        image_data: str,
        image_root: str,
        clip: bool = False,
        questions: str | list[str] = "rec",
        answer: str = ANSWER,
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        rows = VisualGenomeRegions(regions, image_data)
        options: dict[str, Any] = {"image_root": image_root, "seed": seed, "exif": exif, "files": rows.files}
        super().__init__(rows, questions=questions, answer=answer, clip=clip, **options)


@DATASETS.register_module()
class VisualGenomeREG(REGDataset):
    """Box → region phrase, over the files of ``VisualGenomeREC``.

    ``caption_min_words`` and ``caption_max_words`` leave out shorter and longer phrases.
    """

    def __init__(
        self,
        regions: str,
        image_data: str,
        image_root: str,
        clip: bool = False,
        questions: str | list[str] = "reg",
        caption_min_words: int | None = None,
        caption_max_words: int | None = None,
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        rows = VisualGenomeRegions(regions, image_data)
        options: dict[str, Any] = {"image_root": image_root, "seed": seed, "exif": exif, "files": rows.files}
        super().__init__(
            rows,
            questions=questions,
            caption_min_words=caption_min_words,
            caption_max_words=caption_max_words,
            clip=clip,
            **options,
        )


def _regions(image: Row) -> list[Any]:
    regions = image["regions"]
    if not isinstance(regions, list):
        raise DataError(f"{image.place}: field 'regions' must be a list, got {regions!r:.60}")
    return regions


def _region_row(image: Row, number: int, img_path: str) -> Row:
    place = f"{image.place}:regions[{number}]"
    region = _regions(image)[number]
    if not isinstance(region, dict):
        raise DataError(f"{place}: a region is an object, got {region!r:.60}")
    region = Row(region, place)
    values = [region[key] for key in ("x", "y", "width", "height")]
    if not all(type(value) in (int, float) for value in values):
        raise DataError(f"{place}: x, y, width and height must be numbers, got {values!r:.80}")
    row = {
        "img_path": img_path,
        "expression": region["phrase"],
        "bbox": xywh_to_xyxy(values),
        "image_id": image["id"],
        "region_id": region["region_id"],
    }
    return Row(row, place)
