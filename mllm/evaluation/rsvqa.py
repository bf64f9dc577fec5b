"""Questions on remote-sensing images: RSVQA (Lobry et al., IEEE TGRS 58(12), 2020), RSIVQA and RS4."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mllm.evaluation.base import Evaluator, Failure
from mllm.evaluation.texts import EMPTY, answers_of, check_option, folded
from mllm.registry import EVALUATORS
from mllm.structures import Record

COUNTS = ("exact", "ranges")
RANGES = ((0, "0"), (10, "between 1 and 10"), (100, "between 11 and 100"), (1000, "between 101 and 1000"))
MORE = "more than 1000"
_NUMBER = re.compile(r"\d+")


@EVALUATORS.register_module()
class RSVQAEvaluator(Evaluator):
    """Overall accuracy, and the mean of the question types' accuracies, which RSVQA calls average accuracy.

    Answers are compared in lower case without a full stop at the end. Tables: sub-dataset where records have one, and
    question type; a type of RS4 is that of its sub-dataset (LR count, DOTA count).

    Args:
        counts: ``"exact"`` – a count must be right to the unit; ``"ranges"`` – both sides are put into the five classes
            that the paper scores RSVQA-LR with (0, 1 to 10, 11 to 100, 101 to 1000, more than 1000); a prediction may
            also name the class, as in ``between 11 and 100``.
    """

    metrics = ("accuracy", "average_accuracy")

    def __init__(self, counts: str = "exact") -> None:
        check_option(self, "counts", counts, COUNTS)
        self.counts = counts

    def parse(self, record: Record) -> str | Failure:
        """The answer in the form that is compared."""
        return self._form(record.pred) if record.pred.strip() else Failure(EMPTY)

    def statistics(self, value: str | Failure, record: Record) -> dict[str, Any]:
        """1.0 or 0.0, and the question's type."""
        correct = value in [self._form(text) for text in answers_of(record, self, "answers")]
        return {"accuracy": float(correct), "type": self.categories(record).get("question_type", "")}

    def reduce(self, statistics: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Accuracy over all records, and the mean of the accuracies of the types."""
        types: dict[str, list[float]] = {}
        for row in statistics:
            types.setdefault(row["type"], []).append(row["accuracy"])
        means = [sum(values) / len(values) for values in types.values()]
        total = sum(row["accuracy"] for row in statistics)
        return {
            "accuracy": total / max(len(statistics), 1),
            "average_accuracy": sum(means) / max(len(means), 1),
        }

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
        return f"rsvqa|match=lower,no-final-stop|counts={self.counts}"

    def _form(self, text: str) -> str:
        plain = folded(text).rstrip(".").rstrip()
        if self.counts == "ranges" and _NUMBER.fullmatch(plain):
            return next((name for highest, name in RANGES if int(plain) <= highest), MORE)
        return plain
