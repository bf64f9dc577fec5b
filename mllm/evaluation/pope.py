"""POPE: does the model see objects that are not there? (Li et al., EMNLP 2023, github AoiDragon/POPE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mllm.errors import DataError
from mllm.evaluation.base import SAMPLES, Evaluator, Failure
from mllm.evaluation.draws import Addends, Sums
from mllm.evaluation.texts import EMPTY, answers_of
from mllm.registry import EVALUATORS
from mllm.structures import Record

NEGATIONS = frozenset(("No", "not", "no"))
COUNTED = ("accuracy", "tp", "fp", "fn", "yes", SAMPLES)


@EVALUATORS.register_module()
class POPEEvaluator(Evaluator):
    """F1 and the rest over yes/no answers, "yes" positive; the table by category has random, popular, adversarial.

    The answer is read as in POPE's ``evaluate.py``: up to the first full stop, commas removed, split at spaces; one of
    the words No, no, not makes it a no, anything else a yes. An empty answer is wrong whatever the truth is, where
    ``evaluate.py`` takes it for a yes. Over several subsets every metric is the mean of the subsets' values.
    ``yes_ratio`` is reported too.
    """

    metrics = ("f1", "accuracy", "precision", "recall")

    def parse(self, record: Record) -> str | Failure:
        """``"yes"`` or ``"no"``."""
        if not (text := record.pred.strip()):
            return Failure(EMPTY)
        words = text.partition(".")[0].replace(",", "").split(" ")
        return "yes" if NEGATIONS.isdisjoint(words) else "no"

    def statistics(self, value: str | Failure, record: Record) -> dict[str, Any]:
        """The cell of the confusion table, a failure standing in a wrong one, and the subset."""
        label = (answers_of(record, self, "answers") or ["yes"])[0].strip().lower()
        if label not in ("yes", "no"):
            raise DataError(f"record {record.index}: POPE's answers are 'yes' and 'no', truth has {label!r:.40}")
        correct = value == label
        return {
            "accuracy": float(correct),
            "tp": float(correct and label == "yes"),
            "fp": float(not correct and label == "no"),
            "fn": float(not correct and label == "yes"),
            "yes": float(value == "yes"),
            "subset": str(record.meta.get("category", "")),
        }

    def addends(self, row: Mapping[str, Any]) -> Addends:
        """The cells of the subset's confusion table."""
        return {(row["subset"], name): 1 if name == SAMPLES else row[name] for name in COUNTED}

    def from_sums(self, sums: Sums) -> dict[str, float]:
        """The means of the metrics over the subsets."""
        subsets = [subset for subset, name in sums if name == SAMPLES and sums[subset, name]]
        scored = [_scores({name: sums[subset, name] for name in COUNTED}) for subset in subsets or [""]]
        return {name: sum(one[name] for one in scored) / len(scored) for name in scored[0]}

    def signature(self) -> str:
        """Protocol of the number."""
        return "pope|read=first-sentence,No/no/not|empty=wrong|positive=yes|mean=subsets"


def _scores(total: Mapping[str, float]) -> dict[str, float]:
    precision, recall = (total["tp"] / max(total["tp"] + total[name], 1) for name in ("fp", "fn"))
    return {
        "f1": 2 * precision * recall / (precision + recall) if total["tp"] else 0.0,
        "accuracy": total["accuracy"] / max(total[SAMPLES], 1),
        "precision": precision,
        "recall": recall,
        "yes_ratio": total["yes"] / max(total[SAMPLES], 1),
    }
