"""Files that others wrote, scored by one evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllm.engine.records import in_order
from mllm.engine.run_folder import file_fingerprint
from mllm.errors import ConfigError, DataError
from mllm.grounding import build_formatter
from mllm.pipeline.scoring.join import attach, join, select
from mllm.pipeline.scoring.predictions import read_predictions, read_questions
from mllm.pipeline.scoring.scored import ScoredSet, score_set
from mllm.pipeline.scoring.truths import read_truths
from mllm.registry import EVALUATORS
from mllm.structures import Record
from mllm.utils.storage import is_remote


@dataclass(frozen=True)
class Files:
    """What is to be scored: paths, ``select`` (field → value), and how an unusual evaluator reads it."""

    predictions: str
    annotations: Sequence[str] = ()
    questions: str | None = None
    select: Mapping[str, str] = field(default_factory=dict)
    formatter: Any = None
    allow_partial: bool = False


class _NoFormatter:
    """Stands where an evaluator expects the run's formatter; using it is the error."""

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(
            "the evaluator reads coordinates from the text and no formatter is known: add --formatter NAME, or "
            "--option boxes=pixels where the evaluator has it"
        )


def score_files(evaluator_cfg: Mapping[str, Any], files: Files, *, resamples: int) -> ScoredSet:
    """Build the evaluator, join predictions and truths, score; the set bears the predictions file's name."""
    evaluator = EVALUATORS.build(evaluator_cfg)
    evaluator.formatter = _NoFormatter() if files.formatter is None else build_formatter(files.formatter)
    evaluator.start()
    records, expected = read_joined(files)
    local = [Path(path) for path in files.annotations if not is_remote(path)]
    return score_set(
        Path(files.predictions).name.removesuffix(".gz"),
        records,
        [evaluator],
        [evaluator_cfg],
        expected=expected,
        data={"rows": expected, "files": [file_fingerprint(path) for path in local]},
        resamples=resamples,
    )


def read_joined(files: Files) -> tuple[list[Record], int]:
    """The records and how many there should be; without annotations the truths of our own records."""
    predictions = read_predictions(files.predictions)
    questions = read_questions(files.questions) if files.questions else []
    if not files.annotations:
        records = [one.record for one in predictions if one.record is not None]
        if not records:
            raise DataError(f"{files.predictions} holds no truths; add --annotations FILE")
        expected = max(record.index for record in records) + 1
        return in_order(records, expected, files.predictions, allow_partial=files.allow_partial), expected
    truths, by_order = read_truths(files.annotations)
    attach(predictions, truths, questions)
    predictions, truths = select(predictions, truths, questions, files.select)
    return join(predictions, truths, by_order=by_order, allow_partial=files.allow_partial), len(truths)
