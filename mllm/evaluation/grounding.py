"""Phrase grounding: is the box given for each phrase of a sentence the place that the phrase means?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mllm.errors import ConfigError, DataError
from mllm.evaluation.base import Evaluation, Evaluator, Failure
from mllm.evaluation.draws import Addends, Sums
from mllm.evaluation.texts import check_option
from mllm.grounding.geometry import box_iou, enclosing_box
from mllm.registry import EVALUATORS
from mllm.structures import Box, Record

PROTOCOLS = ("merged-box", "any-box")
SEVERAL = ("enclose", "ranked")
THRESHOLD = 0.5


@EVALUATORS.register_module()
class PhraseGroundingEvaluator(Evaluator):
    """Share of phrases whose box is found at IoU ≥ 0.5, per phrase type; phrases without boxes are left out.

    The answer gives a group of boxes for each grounded phrase of the sentence, in its order; a phrase without a group
    is a miss, groups beyond the last phrase do not count. ``phrases`` of the truth hold text, boxes and types.

    Args:
        protocol: ``"merged-box"`` – the truth is the smallest box around all boxes of the phrase (Flickr30k Entities,
            Plummer et al., ICCV 2015); ``"any-box"`` – any one of them will do (MDETR, arXiv 2104.12763).
        plus_one: boxes reach one pixel beyond their right and lower edge, as the official evaluation has it; MDETR's is
            continuous. By default as the protocol was published: with merged-box, not with any-box.
        ranks: k of R@k; the first is the headline.
        several: what several boxes of a group are: ``"enclose"`` – parts of one place, their enclosing box is the one
            candidate – or ``"ranked"`` – candidates, best first. By default enclosed with merged-box.
    """

    metrics: ClassVar[tuple[str, ...]] = ("R@1", "R@5", "R@10", "upper_bound")

    def __init__(
        self,
        protocol: str = "merged-box",
        plus_one: bool | None = None,
        ranks: Sequence[int] = (1, 5, 10),
        several: str | None = None,
    ) -> None:
        merged = protocol == "merged-box"
        several = several or ("enclose" if merged else "ranked")
        check_option(self, "protocol", protocol, PROTOCOLS)
        check_option(self, "several", several, SEVERAL)
        if not ranks or any(type(rank) is not int or rank < 1 for rank in ranks):
            raise ConfigError(f"PhraseGroundingEvaluator: ranks={ranks!r}; expected whole numbers from 1")
        self.protocol, self.several, self.ranks = protocol, several, tuple(ranks)
        self.plus_one = merged if plus_one is None else plus_one
        self.metrics = (*(f"R@{rank}" for rank in self.ranks), "upper_bound")

    def parse(self, record: Record) -> dict[str, list[list[Box]]] | Failure:
        """The groups of boxes in the answer, in original pixels."""
        groups = self.formatter.parse_boxes(record.pred).groups
        if not groups:
            return Failure("no box in the answer")
        if not record.frames:
            return Failure("the record has no frame")
        frame = record.frames[0]
        return {"groups": [[frame.denormalize(box) for box in group] for group in groups]}

    def statistics(self, value: dict[str, list[list[Box]]] | Failure, record: Record) -> dict[str, Any]:
        """Phrases and hits of the sentence, altogether and by phrase type; a phrase of two types counts in both."""
        groups = [] if isinstance(value, Failure) else value["groups"]
        total, types = self._nothing(), {}
        for number, phrase in enumerate(grounded_phrases(record, self)):
            hits = self._hits(groups[number] if number < len(groups) else [], phrase["boxes"])
            add_up(total, hits)
            for name in phrase.get("types") or ():
                add_up(types.setdefault(name, self._nothing()), hits)
        return {**total, "types": types}

    def addends(self, row: Mapping[str, Any]) -> Addends:
        """Phrases and hits."""
        return {name: row[name] for name in ("phrases", *self.metrics)}

    def from_sums(self, sums: Sums) -> dict[str, float]:
        """Hits over phrases."""
        return {name: sums[name] / max(sums["phrases"], 1) for name in self.metrics}

    def signature(self) -> str:
        """Protocol of the numbers."""
        edges = "plus-one" if self.plus_one else "cont"
        ranks = ",".join(map(str, self.ranks))
        return (
            f"phrase|truth={self.protocol}|iou={edges}|cmp=ge{THRESHOLD}|level=phrase|several={self.several}"
            f"|align=order|ranks={ranks}|box={self.formatter.signature}|gt=annotation"
        )

    def evaluate(self, records: Sequence[Record], **options: Any) -> Evaluation:
        """As for every evaluator; the table ``phrase_type`` counts phrases as its samples."""
        evaluation = super().evaluate(records, **options)
        rows: dict[str, list[Mapping[str, int]]] = {}
        for score in evaluation.scores:
            for name, row in score["types"].items():
                rows.setdefault(name, []).append(row)
        table = {
            name: {**self.reduce(members), "samples": sum(row["phrases"] for row in members)}
            for name, members in sorted(rows.items())
        }
        if table:
            evaluation.tables["phrase_type"] = table
        return evaluation

    def _nothing(self) -> dict[str, int]:
        return {"phrases": 0, **dict.fromkeys(self.metrics, 0)}

    def _hits(self, group: Sequence[Box], truth: Sequence[Box]) -> dict[str, int]:
        candidates = [enclosing_box(group)] if group and self.several == "enclose" else list(group)
        wanted = [enclosing_box(truth)] if self.protocol == "merged-box" else truth
        good = [any(self._iou(box, true) >= THRESHOLD for true in wanted) for box in candidates]
        ranked = {f"R@{rank}": int(any(good[:rank])) for rank in self.ranks}
        return {"phrases": 1, **ranked, "upper_bound": int(any(good))}

    def _iou(self, box: Box, true: Sequence[float]) -> float:
        return box_iou(beyond(box), beyond(true)) if self.plus_one else box_iou(box, true)


def grounded_phrases(record: Record, evaluator: Evaluator) -> list[Mapping[str, Any]]:
    """The truth's phrases that have boxes; DataError where it tells of none."""
    phrases = record.truth.get("phrases")
    if phrases is None and record.failure is None:
        known = ", ".join(sorted(record.truth)) or "nothing"
        name = type(evaluator).__name__
        raise DataError(f"record {record.index}: {name} needs the truth's 'phrases'; the truth has {known}")
    return [phrase for phrase in phrases or () if phrase.get("boxes")]


def beyond(box: Sequence[float]) -> Box:
    """The box as whole pixels, its last column and row included."""
    return box[0], box[1], box[2] + 1, box[3] + 1


def add_up(total: dict[str, int], numbers: Mapping[str, int]) -> None:
    """Add ``numbers`` to ``total`` by name."""
    for name, number in numbers.items():
        total[name] += number
