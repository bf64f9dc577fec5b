"""Boxes as continuous rectangles ``(x0, y0, x1, y1)``: area, overlap, clipping. No pixel is counted twice or added."""

from __future__ import annotations

from collections.abc import Sequence

from mllm.structures import Box, Point

SMALL_BELOW, MEDIUM_BELOW = 32**2, 96**2


def box_area(box: Sequence[float]) -> float:
    """Width times height; 0 where right or bottom does not lie beyond left or top."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes in the same frame, in [0, 1]; 0 where either has no area."""
    area_a, area_b = box_area(a), box_area(b)
    if area_a <= 0 or area_b <= 0:
        return 0.0
    shared = box_area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return min(shared / (area_a + area_b - shared), 1.0)


def area_class(box: Sequence[float]) -> str:
    """ "small", "medium" or "large" by COCO's limits, 32² and 96² pixels of the original (arXiv 1405.0312).

    COCO measures the object's mask; here it is the box, which is larger.
    """
    area = box_area(box)
    return "small" if area < SMALL_BELOW else "medium" if area < MEDIUM_BELOW else "large"


def enclosing_box(boxes: Sequence[Sequence[float]]) -> Box:
    """The smallest box that holds all ``boxes``; ValueError for none."""
    if not boxes:
        raise ValueError("enclosing_box needs at least one box")
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def clip_box(box: Sequence[float], image_size: tuple[int, int]) -> Box:
    """The part of ``box`` inside the image of ``(width, height)``; without area where it lies outside."""
    width, height = image_size
    x0, y0, x1, y1 = box
    return (
        min(max(x0, 0.0), width),
        min(max(y0, 0.0), height),
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
    )


def xywh_to_xyxy(box: Sequence[float]) -> Box:
    """``(x, y, width, height)``, as COCO writes boxes, → ``(x0, y0, x1, y1)``."""
    x, y, width, height = box
    return x, y, x + width, y + height


def box_centre(box: Sequence[float]) -> Point:
    """The middle of the box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def contains_point(box: Sequence[float], point: Sequence[float]) -> bool:
    """Whether the point lies in the box or on its edge."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
