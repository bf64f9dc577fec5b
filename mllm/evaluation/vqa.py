"""VQA accuracy over ten human answers: VQAv2, TextVQA, VizWiz-VQA, OK-VQA (Antol et al., ICCV 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mllm.errors import DataError
from mllm.evaluation.base import Evaluator, Failure
from mllm.evaluation.texts import EMPTY, answers_of, check_option
from mllm.evaluation.vqa_text import cleaned, m4c_form, official_form
from mllm.registry import EVALUATORS
from mllm.structures import Record

VARIANTS = ("official", "always-normalise", "m4c")
HUMANS = 10
ANSWERABLE = {"1": "answerable", "0": "unanswerable", "True": "answerable", "False": "unanswerable"}


@EVALUATORS.register_module()
class VQAEvaluator(Evaluator):
    """Mean over the ten sets of nine answers of min(matches / 3, 1): 1 of 10 gives 0.3, 2 0.6, 3 0.9, more 1.

    Left out is one answer by its place, also where others are the same. Tables: answer type (the record's category in
    VQAv2 and VizWiz), question type, and answerable or not where VizWiz tells it.

    ``variant`` says in which form answers are compared (``mllm.evaluation.vqa_text``):

    - ``"official"`` – github GT-Vision-Lab/VQA: normalised only where the ten answers are not all the same text. Where
      they are, they are compared as they stand, case included: ``Unanswerable`` misses ten times ``unanswerable``.
    - ``"always-normalise"`` – the same rules on every question; for VizWiz and models that begin with a capital.
    - ``"m4c"`` – the processor of facebookresearch/mmf on every question, LLaVA's TextVQA number.
    """

    metrics = ("vqa_accuracy",)

    def __init__(self, variant: str = "official") -> None:
        check_option(self, "variant", variant, VARIANTS)
        self.variant = variant

    def parse(self, record: Record) -> str | Failure:
        """The answer in the form that is compared."""
        if not record.pred.strip():
            return Failure(EMPTY)
        return self._form(self._answers(record))(record.pred)

    def statistics(self, value: str | Failure, record: Record) -> dict[str, float]:
        """The accuracy of one question, in [0, 1]."""
        answers = self._answers(record)
        if isinstance(value, Failure):
            return {"vqa_accuracy": 0.0}
        form = self._form(answers)
        return {"vqa_accuracy": leave_one_out([form(answer) == value for answer in answers])}

    def categories(self, record: Record) -> Mapping[str, str | Sequence[str]]:
        """Answer type, question type and whether the question can be answered, as far as ``meta`` tells them."""
        meta = record.meta
        found = {
            "answer_type": meta.get("answer_type", meta.get("category")),
            "question_type": meta.get("question_type"),
            "answerable": ANSWERABLE.get(str(meta.get("answerable"))),
        }
        return {name: value for name, value in found.items() if value is not None}

    def signature(self) -> str:
        """Protocol of the number."""
        return f"vqa|variant={self.variant}|answers={HUMANS}|leave-one-out=index"

    def _answers(self, record: Record) -> list[str]:
        answers = answers_of(record, self, "answers")
        if len(answers) != HUMANS and record.failure is None:
            raise DataError(
                f"record {record.index}: {len(answers)} answers; VQA accuracy is defined over {HUMANS}, "
                "ExactMatchEvaluator takes any number"
            )
        return answers

    def _form(self, answers: Sequence[str]) -> Callable[[str], str]:
        if self.variant == "m4c":
            return m4c_form
        agreed = self.variant == "official" and len({cleaned(answer) for answer in answers}) == 1
        return cleaned if agreed else official_form


def leave_one_out(matches: Sequence[bool]) -> float:
    """Mean of min(matches among the others / 3, 1) over the answers, each left out once."""
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)
