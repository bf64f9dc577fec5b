"""Questions on remote-sensing images: RSVQA (Lobry et al., IEEE TGRS 58(12), 2020), RSIVQA and RS4."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mllm.evaluation.base import SAMPLES, Evaluator, Failure
from mllm.evaluation.draws import Addends, Sums
from mllm.evaluation.texts import EMPTY, answers_of, check_option, folded
from mllm.registry import EVALUATORS
from mllm.structures import Record

READINGS = ("exact", "ranges")
RANGES = ((0, "0"), (10, "between 1 and 10"), (100, "between 11 and 100"), (1000, "between 101 and 1000"))
MORE = "more than 1000"
_NUMBER = re.compile(r"\d+")
# A class is called by its upper end: the paper writes "between 1m2 and 10m2", the authors' code "between 0m2 and 10m2".
_AREA = re.compile(r"(?:between \d+ ?m[2²] and )?(\d+) ?m[2²]")
_LARGE = re.compile(r"more than 1000 ?m[2²]")


@EVALUATORS.register_module()
class RSVQAEvaluator(Evaluator):
    """Overall accuracy, and the mean of the question types' accuracies, which RSVQA calls average accuracy.

    Answers are compared in lower case without a full stop at the end. Tables: sub-dataset where records have one, and
    question type; a type of RS4 is that of its sub-dataset (LR count, DOTA count).

    Args:
        counts: ``"exact"`` – a count must be right to the unit; ``"ranges"`` – both sides are put into the five classes
            that the paper scores RSVQA-LR with (0, 1 to 10, 11 to 100, 101 to 1000, more than 1000); a prediction may
            also name the class, as in ``between 11 and 100``.
        areas: ``"exact"``, or ``"ranges"`` – the five classes that RSVQA-HR is scored with (github syvlo/RSVQA): 0 m²,
            to 10, to 100, to 1000 m², more; a prediction may name the class, as in ``between 10m2 and 100m2``.
    """

    metrics = ("accuracy", "average_accuracy")

    def __init__(self, counts: str = "exact", areas: str = "exact") -> None:
        check_option(self, "counts", counts, READINGS)
        check_option(self, "areas", areas, READINGS)
        self.counts, self.areas = counts, areas

    def parse(self, record: Record) -> str | Failure:
        """The answer in the form that is compared."""
        return self._form(record.pred) if record.pred.strip() else Failure(EMPTY)

    def statistics(self, value: str | Failure, record: Record) -> dict[str, Any]:
        """1.0 or 0.0, and the question's type."""
        correct = value in [self._form(text) for text in answers_of(record, self, "answers")]
        return {"accuracy": float(correct), "type": self.categories(record).get("question_type", "")}

    def addends(self, row: Mapping[str, Any]) -> Addends:
        """Questions and right answers, altogether (None) and of each type."""
        return {
            (kind, name): number
            for kind in (None, row["type"])
            for name, number in ((SAMPLES, 1), ("accuracy", row["accuracy"]))
        }

    def from_sums(self, sums: Sums) -> dict[str, float]:
        """Accuracy over all records, and the mean of the accuracies of the types."""
        counts = {kind: sums[kind, name] for kind, name in sums if name == SAMPLES and sums[kind, name]}
        shares = {kind: sums[kind, "accuracy"] / count for kind, count in counts.items()}
        total = shares.pop(None, 0.0)
        return {"accuracy": total, "average_accuracy": sum(shares.values()) / max(len(shares), 1)}

    def categories(self, record: Record) -> Mapping[str, str | Sequence[str]]:
        """Sub-dataset and question type; a record without ``question_type`` has its type as category."""
        category, kind = record.meta.get("category"), record.meta.get("question_type")
        if category is None:
            return {} if kind is None else {"question_type": kind}
        return (
            {"question_type": category} if kind is None else {"subset": category, "question_type": f"{category} {kind}"}
        )

    def signature(self) -> str:
        """Protocol of the number."""
        return f"rsvqa|match=lower,no-final-stop|counts={self.counts}|areas={self.areas}"

    def _form(self, text: str) -> str:
        plain = folded(text).rstrip(".").rstrip()
        if self.counts == "ranges" and _NUMBER.fullmatch(plain):
            return _range_of(plain)
        if self.areas == "ranges" and (area := _AREA.fullmatch(plain)):
            return f"{_range_of(area[1])} m2"
        return f"{MORE} m2" if self.areas == "ranges" and _LARGE.fullmatch(plain) else plain


def _range_of(digits: str) -> str:
    # Python reads no number of thousands of digits, which a model that repeats itself may write.
    value = int(digits[:9])
    return next((name for highest, name in RANGES if value <= highest), MORE)
