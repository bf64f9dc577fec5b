"""Exact match after lower-casing and collapsing white space."""

from __future__ import annotations

from mllm.evaluation.base import Evaluator, Failure
from mllm.registry import EVALUATORS
from mllm.structures import Record


@EVALUATORS.register_module()
class ExactMatchEvaluator(Evaluator):
    """1 where the answer equals one of the references, case and white space aside."""

    metrics = ("exact_match",)

    def parse(self, record: Record) -> str | Failure:
        """The answer, normalised."""
        return _normal(record.pred) or Failure("empty answer")

    def statistics(self, value: str | Failure, record: Record) -> dict[str, float]:
        """1.0 or 0.0."""
        return {"exact_match": float(value in [_normal(text) for text in record.truth.get("references", [])])}


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
