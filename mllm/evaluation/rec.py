"""Referring expression comprehension: is the predicted box the object that the expression means?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mllm.errors import ConfigError, DataError
from mllm.evaluation.base import Evaluator, Failure
from mllm.grounding.geometry import area_class, box_iou
from mllm.registry import EVALUATORS
from mllm.structures import Box, Record


@EVALUATORS.register_module()
class RECEvaluator(Evaluator):
    """Accuracy at IoU ≥ 0.5 per sentence, continuous IoU, original pixels (refer, github lichengunc/refer).

    Where the answer holds several boxes the first counts; an answer without a box is a miss. ``boxes="pixels"`` reads
    files of others whose boxes are pixels of the original image already.
    """

    metrics = ("acc@0.5", "mean_iou", "acc@0.25", "acc@0.75")

    def __init__(self, boxes: str = "formatter") -> None:
        if boxes not in ("formatter", "pixels"):
            raise ConfigError(f"RECEvaluator: boxes={boxes!r}; known: formatter, pixels")
        self.boxes = boxes

    def parse(self, record: Record) -> Box | Failure:
        """The first box of the answer, in original pixels."""
        if self.boxes == "pixels":
            return _pixel_box(record.pred)
        groups = self.formatter.parse_boxes(record.pred).groups
        if not groups:
            return Failure("no box in the answer")
        if not record.frames:
            return Failure("the record has no frame")
        return record.frames[0].denormalize(groups[0][0])

    def statistics(self, value: Box | Failure, record: Record) -> dict[str, float]:
        """IoU with the true box and the hits at three thresholds."""
        truth = record.truth.get("boxes")
        if not truth and record.failure is None:
            raise DataError(f"record {record.index}: truth has no 'boxes'; the REC evaluator needs the true box")
        iou = 0.0 if isinstance(value, Failure) else box_iou(value, tuple(truth[0]))
        hits = {f"acc@{threshold}": float(iou >= threshold) for threshold in (0.25, 0.5, 0.75)}
        return {"mean_iou": iou, **hits}

    def categories(self, record: Record) -> Mapping[str, str | Sequence[str]]:
        """Those of the record's ``meta``, and the size of the true object in pixels of the original."""
        boxes = record.truth.get("boxes")
        return {**super().categories(record), **({"object_size": area_class(boxes[0])} if boxes else {})}

    def signature(self) -> str:
        """Protocol of the number."""
        frame = "px" if self.boxes == "pixels" else self.formatter.signature
        return f"rec|iou=cont|cmp=ge|level=sentence|box={frame}|gt=annotation"


def _pixel_box(text: str) -> Box | Failure:
    parts = text.strip().strip("[]()").split(",")
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        return Failure("not four numbers")
    return numbers if len(numbers) == 4 else Failure("not four numbers")
