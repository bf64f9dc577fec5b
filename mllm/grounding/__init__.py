"""Coordinates: geometry, formatters (coordinates to text and back), transforms with their frames."""

from mllm.grounding.formatter import (
    BinTokenFormatter,
    Formatter,
    Parsed,
    PlainFormatter,
    ThousandFormatter,
    build_formatter,
)
from mllm.grounding.geometry import (
    box_area,
    box_centre,
    box_iou,
    clip_box,
    contains_point,
    enclosing_box,
    xywh_to_xyxy,
)
from mllm.grounding.transforms import Compose, RandomHorizontalFlip, Resize, SquareCanvas, Transform, View

__all__ = [
    "BinTokenFormatter",
    "Compose",
    "Formatter",
    "Parsed",
    "PlainFormatter",
    "RandomHorizontalFlip",
    "Resize",
    "SquareCanvas",
    "ThousandFormatter",
    "Transform",
    "View",
    "box_area",
    "box_centre",
    "box_iou",
    "build_formatter",
    "clip_box",
    "contains_point",
    "enclosing_box",
    "xywh_to_xyxy",
]
