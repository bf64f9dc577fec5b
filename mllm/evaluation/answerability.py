"""VizWiz-VQA's second task: can the question be answered from the picture? (Gurari et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mllm.errors import DataError
from mllm.evaluation.base import Evaluator, Failure
from mllm.evaluation.draws import Addends, Draw, Rows, Sums
from mllm.evaluation.texts import EMPTY, check_option
from mllm.evaluation.vqa_text import official_form
from mllm.registry import EVALUATORS
from mllm.structures import Record

READINGS = ("text", "score")
UNANSWERABLE = "unanswerable"


@EVALUATORS.register_module()
class AnswerabilityEvaluator(Evaluator):
    """F1 and average precision of the questions that cannot be answered, as the VizWiz API's ``vqaEval.py`` has them.

    The truth is ``answerable`` (1 or 0) in the record's truth or ``meta``. F1 takes a question for unanswerable where
    its score is below 0.5; average precision is the sum of precision times the step in recall over the scores, the
    least answerable first. What cannot be read is wrong at every threshold.

    Args:
        read: ``"text"`` – the score is 0 where the answer is ``unanswerable`` after the normalisation of VQA, else 1:
            two thresholds, by which average precision says little more than F1 – or ``"score"`` – the prediction is
            the challenge's score in [0, 1], how answerable the question is.
    """

    metrics = ("f1", "average_precision")

    def __init__(self, read: str = "text") -> None:
        check_option(self, "read", read, READINGS)
        self.read = read

    def parse(self, record: Record) -> float | Failure:
        """How answerable the question is, in [0, 1]."""
        if not record.pred.strip():
            return Failure(EMPTY)
        if self.read == "text":
            return float(official_form(record.pred) != UNANSWERABLE)
        try:
            score = float(record.pred)
        except ValueError:
            return Failure("no number")
        return score if 0 <= score <= 1 else Failure("no number from 0 to 1")

    def statistics(self, value: float | Failure, record: Record) -> dict[str, Any]:
        """Truth, score (None for a failure), and the cells of the confusion table, "unanswerable" positive."""
        truth = record.truth.get("answerable", record.meta.get("answerable"))
        if truth not in (0, 1) and record.failure is None:
            raise DataError(f"record {record.index}: AnswerabilityEvaluator needs 'answerable' (0 or 1), got {truth!r}")
        positive, score = truth == 0, None if isinstance(value, Failure) else value
        said = not positive if score is None else score < 0.5
        cells = {"tp": said and positive, "fp": said and not positive, "fn": not said and positive}
        return {"unanswerable": int(positive), "score": score, **{name: int(cell) for name, cell in cells.items()}}

    def addends(self, row: Mapping[str, Any]) -> Addends:
        """The cells of the confusion table."""
        return {name: row[name] for name in ("tp", "fp", "fn")}

    def from_sums(self, sums: Sums) -> dict[str, float]:
        """F1."""
        return {"f1": 2 * sums["tp"] / max(2 * sums["tp"] + sums["fp"] + sums["fn"], 1)}

    def reduce(self, statistics: Rows) -> dict[str, float]:
        """Both metrics."""
        precision = _Ranking(statistics).average_precision(np.ones(len(statistics)))
        return {**super().reduce(statistics), "average_precision": precision}

    def drawn(self, statistics: Rows, clusters: np.ndarray) -> Draw:
        """As for every evaluator; the ranking is made once."""
        f1, ranking = super().drawn(statistics, clusters), _Ranking(statistics)
        return lambda times: {**f1(times), "average_precision": ranking.average_precision(times[clusters])}

    def signature(self) -> str:
        """Protocol of the numbers."""
        scores = "text,0/1" if self.read == "text" else "given"
        return f"answerability|positive={UNANSWERABLE}|score={scores}|threshold=0.5|unread=wrong"


class _Ranking:
    """Records in the order of their scores; a failure stands where it harms."""

    def __init__(self, rows: Rows) -> None:
        self.positive = np.array([row["unanswerable"] for row in rows], dtype=float)
        given = np.array([row["score"] for row in rows], dtype=float)
        # An unread one (None, NaN here) that could be answered comes first of all, another is never reached.
        scores = np.where(np.isnan(given), np.where(self.positive > 0, 2.0, -1.0), given)
        self.order = np.argsort(scores, kind="stable")[: int(np.sum(scores <= 1))]
        self.ends = np.flatnonzero(np.diff(scores[self.order], append=2.0))

    def average_precision(self, weights: np.ndarray) -> float:
        """Where each record counts ``weights`` times (records,); 0 where none is unanswerable."""
        hits, reached = (np.cumsum(one[self.order])[self.ends] for one in (weights * self.positive, weights))
        steps = np.diff(hits, prepend=0.0)
        return float(np.sum(steps * hits / np.maximum(reached, 1)) / max(float(weights @ self.positive), 1.0))
