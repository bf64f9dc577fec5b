"""Exact match of a short answer with any reference."""

from __future__ import annotations

from mllm.evaluation.base import Evaluator, Failure
from mllm.evaluation.texts import EMPTY, answers_of, check_option, folded, squad_form
from mllm.registry import EVALUATORS
from mllm.structures import Record

MATCHES = {"exact": str.strip, "case": folded, "squad": squad_form}


@EVALUATORS.register_module()
class ExactMatchEvaluator(Evaluator):
    """1 where the answer equals one of the references (the truth's ``references`` or ``answers``).

    ``match`` says what does not count: ``"case"`` – case and white space, ``"squad"`` – punctuation and the articles a,
    an, the as well (SQuAD's evaluation), ``"exact"`` – white space at the ends alone.
    """

    metrics = ("exact_match",)
    dimensions = ("category", "question_type")

    def __init__(self, match: str = "case") -> None:
        check_option(self, "match", match, list(MATCHES))
        self.match, self.form = match, MATCHES[match]

    def parse(self, record: Record) -> str | Failure:
        """The answer in the form that is compared."""
        return self.form(record.pred) if record.pred.strip() else Failure(EMPTY)

    def statistics(self, value: str | Failure, record: Record) -> dict[str, float]:
        """1.0 or 0.0."""
        references = answers_of(record, self, "references", "answers")
        return {"exact_match": float(value in [self.form(text) for text in references])}

    def signature(self) -> str:
        """The evaluator's name, and the form compared where it is not the default one."""
        return super().signature() + ("" if self.match == "case" else f"|match={self.match}")
