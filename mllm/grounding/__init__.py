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
    area_class,
    box_area,
    box_centre,
    box_iou,
    clip_box,
    contains_point,
    enclosing_box,
    xywh_to_xyxy,
)
from mllm.grounding.qwen_formatter import Qwen3Formatter, Qwen25Formatter
from mllm.grounding.smart_resize import SmartResize, smart_size
from mllm.grounding.transforms import Compose, RandomHorizontalFlip, Resize, SquareCanvas, Transform, View

__all__ = [
    "BinTokenFormatter",
    "Compose",
    "Formatter",
    "Parsed",
    "PlainFormatter",
    "Qwen3Formatter",
    "Qwen25Formatter",
    "RandomHorizontalFlip",
    "Resize",
    "SmartResize",
    "SquareCanvas",
    "ThousandFormatter",
    "Transform",
    "View",
    "area_class",
    "box_area",
    "box_centre",
    "box_iou",
    "build_formatter",
    "clip_box",
    "contains_point",
    "enclosing_box",
    "smart_size",
    "xywh_to_xyxy",
]
