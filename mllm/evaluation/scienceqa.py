"""ScienceQA: which choice does the answer name? (Lu et al., NeurIPS 2022, github lupantech/ScienceQA)."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from typing import Any

from mllm.errors import ConfigError, DataError
from mllm.evaluation.base import Evaluation, Evaluator, Failure
from mllm.evaluation.texts import EMPTY, answers_of, check_option
from mllm.registry import EVALUATORS
from mllm.structures import Record

POLICIES = ("strict", "official-random")
_LETTER_FIRST = re.compile(r"([A-Z])(?:$|\n|\.\s)")
_SENTENCE = re.compile(r"The answer is ([A-Z])\.")


@EVALUATORS.register_module()
class ScienceQAEvaluator(Evaluator):
    """Accuracy, with tables by subject (NAT, SOC, LAN), context (TXT, IMG, NO; TXT and IMG overlap), grade and topic.

    The choice is read from a letter that stands alone or begins the answer as ``A. …``, as haotian-liu/LLaVA's
    ``eval_science_qa.py`` does, else from ``The answer is A.`` where that stands exactly once, as in
    lupantech/ScienceQA; the letter must be one of the choices.

    Args:
        policy: ``"strict"`` – what cannot be read is wrong; ``"official-random"`` – it is guessed at random among the
            choices, as ScienceQA's script does (drawn from the record's id, so that the number can be repeated).
        expected: the number of records that must be there (4241 for the test split); any other is an error.
    """

    metrics = ("accuracy",)
    dimensions = ("subject", "context", "grade", "topic")

    def __init__(self, policy: str = "strict", expected: int | None = None) -> None:
        check_option(self, "policy", policy, POLICIES)
        if expected is not None and (type(expected) is not int or expected < 1):
            raise ConfigError(f"ScienceQAEvaluator: expected={expected!r}; give a number of records or None")
        self.policy, self.expected = policy, expected

    def parse(self, record: Record) -> str | Failure:
        """The letter of a choice."""
        letters = string.ascii_uppercase[: len(answers_of(record, self, "choices"))]
        found = read_choice(record.pred, letters)
        if isinstance(found, Failure) and self.policy == "official-random":
            return random.Random(record.id).choice(letters)
        return found

    def statistics(self, value: str | Failure, record: Record) -> dict[str, float]:
        """1.0 or 0.0."""
        return {"accuracy": float(value in answers_of(record, self, "answer"))}

    def evaluate(self, records: Sequence[Record], **options: Any) -> Evaluation:
        """As for every evaluator; DataError unless there are as many records as ``expected``."""
        if self.expected is not None and len(records) != self.expected:
            raise DataError(
                f"ScienceQAEvaluator: {len(records)} records where {self.expected} are expected; predict the whole "
                "split, or leave 'expected' out and say that the number is of a part"
            )
        return super().evaluate(records, **options)

    def signature(self) -> str:
        """Protocol of the number."""
        count = "" if self.expected is None else f"|expected={self.expected}"
        return f"scienceqa|policy={self.policy}{count}"


def read_choice(text: str, letters: str) -> str | Failure:
    """The one of ``letters`` that an answer names, or why none can be read."""
    text = text.strip()
    if not text:
        return Failure(EMPTY)
    first = _LETTER_FIRST.match(text)
    named = [first.group(1)] if first else _SENTENCE.findall(text)
    if len(named) != 1:
        return Failure("several letters in the answer" if named else "no letter in the answer")
    return named[0] if named[0] in letters else Failure("a letter that is no choice")
