"""Captions with boxes behind their phrases: how good is the text, and do its objects stand where it says?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mllm.errors import ConfigError, DataError
from mllm.evaluation.base import Failure
from mllm.evaluation.captions import CaptionEvaluator
from mllm.evaluation.draws import Addends, Sums
from mllm.evaluation.texts import folded
from mllm.grounding.geometry import box_iou, enclosing_box
from mllm.registry import EVALUATORS
from mllm.structures import Box, Record
from mllm.utils.storage import read_text, resolve_path

THRESHOLD = 0.5
HEAD_WORD = "head-word"
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_LEADING = re.compile(r"^(?:\W|\b(?:and|or|with|a|an|the)\b)+")

Marked = tuple[str, list[Box]]


@EVALUATORS.register_module()
class GroundedCaptionEvaluator(CaptionEvaluator):
    """Caption metrics of the text without coordinates, and whether the marked objects are named and placed rightly.

    Objects are the phrases that boxes stand behind. F1 goes as in ActivityNet-Entities (Zhou et al., CVPR 2019): the
    precision of a class is the share of sentences that name it in which it is right, its recall the share of the true
    sentences; both are means over the classes of all records, and F1 is taken of the means. In ``F1_all`` right means
    a class of the true sentence at IoU > 0.5 with a true box of the class; ``F1_loc`` counts only classes that both
    sentences name. ``phrase_R@1`` is the share of true phrases that the answer repeats word for word (articles aside)
    with an enclosing box at IoU ≥ 0.5 of the enclosing true one.

    The truth is that of one sentence (``phrases``, or else the marked target), references may be more. Object words
    that the answer leaves without a box do not count.

    Args:
        class_map: ``"head-word"`` – the last word before the box is the class – or the path of a JSON file
            ``{word: class}``, the last word of the phrase in it tells the class; phrases with none are no objects.
        options: of ``CaptionEvaluator``.
    """

    metrics: ClassVar[tuple[str, ...]] = ("CIDEr", "F1_all", "F1_loc", "phrase_R@1", *CaptionEvaluator.metrics[1:])

    def __init__(self, class_map: str = HEAD_WORD, **options: Any) -> None:
        super().__init__(**options)
        self.class_map = class_map
        self._classes = None if class_map == HEAD_WORD else _read_classes(class_map)

    def caption_of(self, record: Record) -> str:
        """The answer without coordinates."""
        return self.formatter.strip(record.pred)

    def references_of(self, record: Record) -> list[str]:
        """The truth's references, or the target without coordinates."""
        if not record.truth.get("references") and record.target:
            return [self.formatter.strip(record.target)]
        return super().references_of(record)

    def statistics(self, value: str | Failure, record: Record) -> dict[str, Any]:
        """Those of the caption; each class with its places in answer and truth; phrases and those found."""
        found = [] if isinstance(value, Failure) else self._marked(record.pred, record)
        true = self._true_phrases(record)
        hits = sum(any(_same_phrase(one, phrase) for one in found) for phrase in true)
        grounding = {"objects": self._objects(found, true), "phrases": len(true), "phrase_hits": hits}
        return {**super().statistics(value, record), **grounding}

    def addends(self, row: Mapping[str, Any]) -> Addends:
        """Those of the caption, phrases, and how often each class is answered, true and right, in both kinds of F1."""
        grounding = {"phrases": row["phrases"], "phrase_hits": row["phrase_hits"]}
        for name, answered, true, right in row["objects"]:
            for kind in ("F1_all", "F1_loc") if answered and true else ("F1_all",):
                grounding |= dict(zip(_keys(kind, name), (answered, true, right), strict=True))
        return {**super().addends(row), **grounding}

    def from_sums(self, sums: Sums) -> dict[str, float]:
        """All but CIDEr."""
        scores = super().from_sums(sums)
        for kind in ("F1_all", "F1_loc"):
            classes = [key[1] for key in sums if isinstance(key, tuple) and key[0] == kind and key[2] == "true"]
            scores[kind] = class_f1([[sums[key] for key in _keys(kind, name)] for name in classes])
        scores["phrase_R@1"] = sums["phrase_hits"] / max(sums["phrases"], 1)
        return scores

    def signature(self) -> str:
        """Protocol of the numbers."""
        classes = self.class_map if self.class_map == HEAD_WORD else Path(self.class_map).name
        grounding = f"f1=mean over classes|cmp=gt{THRESHOLD}|objects=marked phrases|classes={classes}"
        return f"grounded-{super().signature()}|{grounding}|box={self.formatter.signature}"

    def _marked(self, text: str, record: Record) -> list[Marked]:
        """The words before each group of boxes and the boxes in original pixels."""
        if not record.frames:
            return []
        marked, end = [], 0
        for group in self.formatter.find(text):
            words, end = _phrase(text[end : group.start]), group.end
            if group.places and group.kind == "boxes" and words:
                marked.append((words, [record.frames[0].denormalize(box) for box in group.places]))
        return marked

    def _true_phrases(self, record: Record) -> list[Marked]:
        phrases = record.truth.get("phrases")
        if phrases is not None:
            return [(_phrase(one["text"]), [tuple(box) for box in one["boxes"]]) for one in phrases if one.get("boxes")]
        marked = self._marked(record.target, record)
        if not marked and record.failure is None:
            raise DataError(
                f"record {record.index}: GroundedCaptionEvaluator needs the truth's 'phrases' or a target with boxes"
            )
        return marked

    def _objects(self, found: Sequence[Marked], true: Sequence[Marked]) -> list[tuple[str, int, int, int]]:
        """Each class as (name, in the answer, in the truth, right place)."""
        answered, wanted = self._by_class(found), self._by_class(true)
        rows = []
        for name in dict.fromkeys((*answered, *wanted)):
            places, truths = answered.get(name, []), wanted.get(name, [])
            right = any(box_iou(place, true) > THRESHOLD for place in places for true in truths)
            rows.append((name, int(bool(places)), int(bool(truths)), int(right)))
        return rows

    def _by_class(self, marked: Sequence[Marked]) -> dict[str, list[Box]]:
        classes: dict[str, list[Box]] = {}
        for text, boxes in marked:
            name = self._class_of(text)
            if name is not None:
                classes.setdefault(name, []).extend(boxes)
        return classes

    def _class_of(self, text: str) -> str | None:
        words = _WORD.findall(text.lower())[::-1]
        if self._classes is None:
            return words[0] if words else None
        return next((self._classes[word] for word in words if word in self._classes), None)


def class_f1(counts: Sequence[Sequence[float]]) -> float:
    """F1 of the means over classes of precision and recall; a class is how often (answered, true, right)."""
    counts = [row for row in counts if row[0] or row[1]]
    precision = sum(right / answered for answered, _, right in counts if answered) / max(len(counts), 1)
    recall = sum(right / true for _, true, right in counts if true) / max(len(counts), 1)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _keys(kind: str, name: str) -> tuple[tuple[str, str, str], ...]:
    return (kind, name, "answered"), (kind, name, "true"), (kind, name, "right")


def _phrase(text: str) -> str:
    """Words since the last comma or stop, without leading articles, in lower case."""
    return _LEADING.sub("", folded(re.split(r"[,.;:!?]\s", text.strip() + " ")[-1] or text)).strip()


def _same_phrase(found: Marked, true: Marked) -> bool:
    apart = f" {found[0]}".endswith(f" {true[0]}")
    return apart and box_iou(enclosing_box(found[1]), enclosing_box(true[1])) >= THRESHOLD


def _read_classes(path: str) -> Mapping[str, str]:
    try:
        classes = json.loads(read_text(resolve_path(path)))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: no JSON: {error}") from error
    if not isinstance(classes, dict) or not all(isinstance(one, str) for one in classes.values()):
        raise ConfigError(f"{path}: expected an object {{word: class}}")
    return {word.lower(): name for word, name in classes.items()}
