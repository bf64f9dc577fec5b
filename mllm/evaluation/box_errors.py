"""What went wrong where one box is asked for: every answer is of exactly one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mllm.evaluation.base import Evaluation
from mllm.grounding.geometry import box_iou
from mllm.structures import Box, Frame, Record

RIGHT_FROM, LOOSE_FROM = 0.5, 0.1
KINDS = {
    "right": f"IoU with the true box from {RIGHT_FROM}",
    "wrong instance": f"fits another known object of the picture: IoU with its box from {RIGHT_FROM}",
    "x, y swapped": f"would be right with x and y exchanged (as fractions of the canvas): IoU from {RIGHT_FROM}",
    "loose box": f"overlaps the true box: IoU from {LOOSE_FROM} to below {RIGHT_FROM}",
    "miss": f"anything else: IoU below {LOOSE_FROM}",
    "not parsed": "no box could be read from the answer, or nothing could be generated",
}


@dataclass
class BoxAnswer:
    """An answer that should be one box; ``predicted`` is None if none could be read, all in original pixels.

    ``others`` are the boxes of other objects of the picture, None where the data set does not tell them.
    """

    predicted: Box | None
    truth: Box
    others: list[Box] | None = None
    frame: Frame | None = None
    iou: float = field(init=False)

    def __post_init__(self) -> None:
        self.iou = 0.0 if self.predicted is None else box_iou(self.predicted, self.truth)

    @property
    def kind(self) -> str:
        """The first that holds of "not parsed" and, in the order of ``KINDS``, the others, which it describes."""
        if self.predicted is None:
            return "not parsed"
        if self.iou >= RIGHT_FROM:
            return "right"
        if any(box_iou(self.predicted, other) >= RIGHT_FROM for other in self.others or ()):
            return "wrong instance"
        if box_iou(self._swapped(), self.truth) >= RIGHT_FROM:
            return "x, y swapped"
        return "loose box" if self.iou >= LOOSE_FROM else "miss"

    def _swapped(self) -> Box:
        """With x and y exchanged on the model's canvas, where the answer was written."""
        frame = self.frame
        x0, y0, x1, y1 = self.predicted if frame is None else frame.normalize(self.predicted)
        exchanged = (y0, x0, y1, x1)
        return exchanged if frame is None else frame.denormalize(exchanged)


def box_answers(evaluation: Evaluation, records: Sequence[Record]) -> dict[int, BoxAnswer]:
    """The answers of a set that is scored by ``mean_iou``, by index; empty for other sets.

    The first true box counts; the truth's ``other_boxes`` are the picture's other objects.
    """
    rows = {row["index"]: row for row in evaluation.scores if "mean_iou" in row}
    answers = {}
    for record in records:
        boxes = record.truth.get("boxes")
        if record.index in rows and boxes:
            predicted, others = rows[record.index].get("value"), record.truth.get("other_boxes")
            frame = record.frames[0] if record.frames else None
            answers[record.index] = BoxAnswer(predicted, boxes[0], others, frame)
    return answers


def count_kinds(answers: Collection[BoxAnswer]) -> dict[str, int]:
    """How many answers are of each kind; "wrong instance" is left out where no answer knows other objects."""
    counts = Counter(answer.kind for answer in answers)
    known = any(answer.others is not None for answer in answers)
    return {kind: counts[kind] for kind in KINDS if known or kind != "wrong instance"}
