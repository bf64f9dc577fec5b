"""GQA: exact match with the one short answer (Hudson and Manning, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mllm.evaluation.base import Evaluator, Failure
from mllm.evaluation.texts import EMPTY, answers_of, check_option, folded, without_articles
from mllm.registry import EVALUATORS
from mllm.structures import Record

ARTICLES = ("keep", "drop")
STRUCTURAL = ("query", "verify", "logical", "choose", "compare")


@EVALUATORS.register_module()
class GQAEvaluator(Evaluator):
    """Accuracy of the whole answer: lower case, white space collapsed, full stops at the end removed, then equality.

    This is what haotian-liu/LLaVA hands to GQA's own ``eval.py``, which compares texts as they stand.
    ``articles="drop"`` also takes out a, an, the on both sides. Tables: structural type (the record's category), and
    binary / open as in ``eval.py`` – open is the structural type query; where the type is unknown, binary is what is
    answered yes or no.
    """

    metrics = ("accuracy",)

    def __init__(self, articles: str = "keep") -> None:
        check_option(self, "articles", articles, ARTICLES)
        self.articles = articles

    def parse(self, record: Record) -> str | Failure:
        """The answer in the form that is compared."""
        return self._form(record.pred) if record.pred.strip() else Failure(EMPTY)

    def statistics(self, value: str | Failure, record: Record) -> dict[str, float]:
        """1.0 or 0.0."""
        answers = answers_of(record, self, "answers")
        return {"accuracy": float(value in [self._form(text) for text in answers])}

    def categories(self, record: Record) -> Mapping[str, str | Sequence[str]]:
        """Structural type, and binary or open."""
        found, answers = dict(super().categories(record)), record.truth.get("answers") or [""]
        kind = found.get("category")
        is_binary = kind != "query" if kind in STRUCTURAL else self._form(answers[0]) in ("yes", "no")
        return {**found, "answer": "binary" if is_binary else "open"}

    def signature(self) -> str:
        """Protocol of the number."""
        return f"gqa|match=lower,no-final-stop|articles={self.articles}"

    def _form(self, text: str) -> str:
        plain = folded(text).rstrip(".").rstrip()
        return without_articles(plain) if self.articles == "drop" else plain
