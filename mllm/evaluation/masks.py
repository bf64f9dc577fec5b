"""Objects' masks as COCO writes them (cocodataset.org, "segmentation"): polygons, and run lengths, packed or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mllm.errors import DataError
from mllm.utils.imports import require

KNOWN = 'expected polygons [[x, y, x, y, …], …] or run lengths {"size": [height, width], "counts": …}'


def mask_of(segmentation: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Whether each pixel (height, width) is the object's; ``image_size`` is (width, height).

    Polygons are drawn by pycocotools (extra ``coco``). DataError where it is no segmentation of such an image.
    """
    width, height = image_size
    if isinstance(segmentation, Mapping):
        if list(segmentation.get("size") or []) != [height, width]:
            size = segmentation.get("size")
            raise DataError(f"run lengths of size {size!r}, the image is [{height}, {width}] (height, width)")
        return _from_runs(segmentation.get("counts"), height, width)
    if not isinstance(segmentation, (list, tuple)) or not segmentation or not all(map(_is_polygon, segmentation)):
        raise DataError(f"{KNOWN}, got {segmentation!r:.60}")
    masks = require("pycocotools.mask", "coco")
    runs = masks.frPyObjects([[float(value) for value in polygon] for polygon in segmentation], height, width)
    return masks.decode(masks.merge(runs)).astype(bool)


def _is_polygon(values: Any) -> bool:
    if not isinstance(values, (list, tuple)) or len(values) < 6 or len(values) % 2:
        return False
    return all(isinstance(value, (int, float)) and abs(value) < 1e7 for value in values)


def _from_runs(counts: Any, height: int, width: int) -> np.ndarray:
    """Runs of 0 and 1 in turn, column by column."""
    counts = _unpacked(counts) if isinstance(counts, str) else counts
    whole = isinstance(counts, (list, tuple)) and all(type(count) is int and count >= 0 for count in counts)
    if not whole or sum(counts) != height * width:
        raise DataError(f"run lengths must be whole numbers that add up to {height * width} pixels; {KNOWN}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _unpacked(text: str) -> Sequence[int]:
    """Run lengths of COCO's text: five bits a character, the fourth and later as difference to the one before last."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    return counts
