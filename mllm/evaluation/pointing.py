"""Points: is the predicted point on its object, and is a question about a point answered rightly?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mllm.errors import DataError
from mllm.evaluation.base import Evaluator, Failure
from mllm.evaluation.masks import mask_of
from mllm.evaluation.texts import answers_of, check_option
from mllm.grounding.geometry import box_area, box_iou, contains_point
from mllm.registry import EVALUATORS
from mllm.structures import Box, Point, Record

WITHIN = ("box", "mask")
NO_FRAME = "the record has no frame"
NOTHING_CHOSEN = -1
_ANSWER = re.compile(r"The answer is (.+?)\.")


@EVALUATORS.register_module()
class PointingEvaluator(Evaluator):
    """Share of points on the true object; of several points the first counts.

    A point outside the image is a miss also where the box reaches beyond it. Where the truth has several boxes or
    masks, the point may lie in any of them.

    Args:
        within: ``"box"`` – inside one of the truth's ``boxes``, edge included – or ``"mask"`` – the pixel
            ``mask[round(y), round(x)]`` belongs to one of its ``masks`` (COCO's polygons or run lengths).
    """

    metrics = ("accuracy",)

    def __init__(self, within: str = "box") -> None:
        check_option(self, "within", within, WITHIN)
        self.within = within

    def parse(self, record: Record) -> Point | Failure:
        """The first point of the answer, in original pixels."""
        groups = self.formatter.parse_points(record.pred).groups
        if not groups:
            return Failure("no point in the answer")
        return record.frames[0].denormalize(groups[0][0]) if record.frames else Failure(NO_FRAME)

    def statistics(self, value: Point | Failure, record: Record) -> dict[str, float]:
        """1.0 or 0.0."""
        places = places_of(record, {"box": "boxes", "mask": "masks"}[self.within], self)
        if isinstance(value, Failure) or not contains_point((0, 0, *record.frames[0].image_size), value):
            return {"accuracy": 0.0}
        if self.within == "box":
            return {"accuracy": float(any(contains_point(box, value) for box in places))}
        return {"accuracy": float(self._is_on_a_mask(value, places, record))}

    def signature(self) -> str:
        """Protocol of the number."""
        rule = {"box": "box,closed", "mask": "mask[round(y),round(x)]"}[self.within]
        return f"pointing|in={rule}|several=first|outside=miss|point={self.formatter.signature}|gt=annotation"

    def _is_on_a_mask(self, point: Point, segmentations: Sequence[Any], record: Record) -> bool:
        image_size = record.frames[0].image_size
        column, row = (round(value) for value in point)
        try:
            masks = [mask_of(segmentation, image_size) for segmentation in segmentations]
        except DataError as error:
            raise DataError(f"record {record.index}: the truth's 'masks': {error}") from error
        # The right and lower edge are still the image, but no pixel.
        return column < image_size[0] and row < image_size[1] and any(mask[row, column] for mask in masks)


@EVALUATORS.register_module()
class PointQAEvaluator(Evaluator):
    """Answers to questions about a point (arXiv 2011.13681) and Visual7W's "which" questions (arXiv 1511.03416).

    Without ``candidates`` in the truth, the answer must hold ``The answer is ….`` exactly once, and what stands there
    up to the first full stop must equal a true answer, cut in the same way. With them, the answer's first box chooses
    the candidate that it overlaps most, its first point the one that it lies in; of two as good the smaller. A box or
    point that meets no candidate is wrong.
    """

    metrics = ("accuracy",)

    def parse(self, record: Record) -> str | int | Failure:
        """The answer's text, or the position of the chosen candidate (-1 for none)."""
        if record.truth.get("candidates"):
            return self._choice(record)
        found = _ANSWER.findall(record.pred)
        if len(found) == 1:
            return found[0].strip()
        return Failure("several 'The answer is ….'" if found else "no 'The answer is ….'")

    def statistics(self, value: str | int | Failure, record: Record) -> dict[str, float]:
        """1.0 or 0.0."""
        if record.truth.get("candidates"):
            right = record.truth.get("answer_index")
            if type(right) is not int:
                raise DataError(f"record {record.index}: PointQAEvaluator needs the truth's 'answer_index'")
            return {"accuracy": float(type(value) is int and value == right)}
        answers = [_cut(answer) for answer in answers_of(record, self, "answers", "references")]
        return {"accuracy": float(isinstance(value, str) and value in answers)}

    def signature(self) -> str:
        """Protocol of the number."""
        read = "pointqa|read=The answer is ….,once|match=exact"
        return f"{read}|choice=iou or inside,ties smallest|box={self.formatter.signature}"

    def _choice(self, record: Record) -> int | Failure:
        candidates = places_of(record, "candidates", self)
        boxes = self.formatter.parse_boxes(record.pred).groups
        points = [] if boxes else self.formatter.parse_points(record.pred).groups
        if not boxes and not points:
            return Failure("no box or point in the answer")
        if not record.frames:
            return Failure(NO_FRAME)
        place = record.frames[0].denormalize((boxes or points)[0][0])
        if boxes:
            return choose(candidates, [box_iou(place, one) for one in candidates])
        return choose(candidates, [float(contains_point(one, place)) for one in candidates])


def choose(candidates: Sequence[Box], scores: Sequence[float]) -> int:
    """Position of the best score above 0, the smallest box of equal ones; -1 for none."""
    good = [number for number, score in enumerate(scores) if score > 0]
    return min(good, key=lambda number: (-scores[number], box_area(candidates[number])), default=NOTHING_CHOSEN)


def places_of(record: Record, name: str, evaluator: Evaluator) -> list[Any]:
    """The boxes or masks in the truth's field ``name``; DataError where a generated record has none."""
    places = record.truth.get(name)
    if not isinstance(places, (list, tuple)) or not places:
        if record.failure is None:
            raise DataError(f"record {record.index}: {type(evaluator).__name__} needs a list in the truth's {name!r}")
        return []
    return list(places)


def _cut(answer: str) -> str:
    """The answer as it would be read in a sentence."""
    found = _ANSWER.search(f"The answer is {answer}.")
    return found[1].strip() if found else answer
