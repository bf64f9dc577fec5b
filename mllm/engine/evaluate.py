"""Predict a named set, score it, write its files; what training, evaluation and prediction all call."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm.engine.made_of import made_of
from mllm.engine.predict import Generator, predict
from mllm.engine.records import read_records
from mllm.engine.run_folder import fingerprint, is_complete, write_evaluations, write_manifest, write_scores
from mllm.engine.together import on_main
from mllm.engine.trainer import with_prefix
from mllm.errors import ConfigError
from mllm.evaluation.base import Evaluation, Evaluator
from mllm.evaluation.report import Section
from mllm.structures import Record
from mllm.utils.logging import get_logger

logger = get_logger(__name__)


class EvaluationSet:
    """A data set with its evaluators under one name; ``run`` writes the files and gives the metrics."""

    def __init__(
        self, name: str, dataset: Any, dataset_cfg: Any, evaluators: Sequence[Evaluator], evaluator_cfgs: Any
    ) -> None:
        self.name = name
        self.dataset = dataset
        self.dataset_cfg = dataset_cfg
        self.evaluators = list(evaluators)
        self.evaluator_cfgs = evaluator_cfgs
        self._data: dict[str, Any] | None = None
        declared = [metric for evaluator in self.evaluators for metric in evaluator.metrics]
        twice = sorted({metric for metric in declared if declared.count(metric) > 1})
        if twice:
            raise ConfigError(f"{name}: two evaluators declare the metric {twice[0]!r}; keep one of them")

    @property
    def metrics(self) -> list[str]:
        """The declared metrics of all evaluators, first ones first."""
        return [metric for evaluator in self.evaluators for metric in evaluator.metrics]

    def run(
        self, generator: Generator, folder: Path, prefix: str, notes: Any = None, *, keep: bool = False
    ) -> tuple[dict[str, float], list[Section]]:
        """Metrics with ``prefix`` on every rank, and on the main process, which scores alone, the report's sections.

        Writes records, manifest and scores, in this order: what fails later leaves what can be scored again. With
        ``keep`` complete predictions that were made of the same are scored, not made again. What fails on one rank is a
        SharedError on all.
        """
        started = time.perf_counter()
        accelerator, path = generator.accelerator, folder / f"{prefix}_predictions.jsonl"
        on_main(accelerator, self._start_evaluators)
        made = made_of(generator, on_main(accelerator, self._described))
        if keep and on_main(accelerator, lambda: is_complete(path, folder / f"{prefix}_manifest.json", made)):
            logger.info("%s: all %d predictions are there, they are scored again", self.name, len(self.dataset))
            records = read_records(path)
        else:
            records = predict(generator, self.dataset, path, self.name, made, notes.add if notes is not None else None)
            on_main(accelerator, lambda: self._write_manifest(folder, prefix, generator, records, made))
        sections: list[Section] = []
        metrics = on_main(accelerator, lambda: self._score(folder, prefix, generator, records, sections))
        metrics["runtime"] = round(time.perf_counter() - started, 2)
        metrics["samples"] = len(records)
        return with_prefix(metrics, prefix), sections

    def _start_evaluators(self) -> None:
        for evaluator in self.evaluators:
            evaluator.start()

    def _described(self) -> dict[str, Any]:
        """Config and fingerprint of the data; the files are read once, an evaluation may come at every step."""
        if self._data is None:
            self._data = fingerprint(self.dataset.dataset)
        return {"config": self.dataset_cfg, **self._data}

    def _write_manifest(
        self, folder: Path, prefix: str, generator: Generator, records: Sequence[Record], made: Mapping[str, str]
    ) -> None:
        write_manifest(
            folder / f"{prefix}_manifest.json",
            processor=generator.processor,
            dataset_cfg=self.dataset_cfg,
            data=self._data,
            records=records,
            predictions=folder / f"{prefix}_predictions.jsonl",
            made_of=made,
            evaluators=self.evaluator_cfgs,
            modules=[type(evaluator).__module__ for evaluator in self.evaluators],
            options=generator.options,
        )
        for old in ("scores.jsonl", "scores.json"):
            (folder / f"{prefix}_{old}").unlink(missing_ok=True)

    def _score(
        self, folder: Path, prefix: str, generator: Generator, records: Sequence[Record], sections: list[Section]
    ) -> dict[str, float]:
        """The metrics; writes the scores and adds a section for each evaluator."""
        for evaluator in self.evaluators:
            evaluator.formatter = generator.processor.formatter
        evaluations = [evaluator.evaluate(records) for evaluator in self.evaluators]
        rows: dict[int, dict[str, Any]] = {}
        for evaluation in evaluations:
            for row in evaluation.scores:
                rows.setdefault(row["index"], {}).update(row)
        write_scores(folder / f"{prefix}_scores.jsonl", list(rows.values()))
        write_evaluations(folder / f"{prefix}_scores.json", evaluations, self.evaluator_cfgs, len(records))
        sections += [Section(self.name, evaluation, records, self._image_of) for evaluation in evaluations]
        return _joined(evaluations)

    def _image_of(self, index: int) -> Any:
        images = self.dataset.item(index).images
        return images[0] if images else None


def _joined(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    metrics: Mapping[str, float] = {}
    for evaluation in evaluations:
        metrics = {**metrics, **evaluation.metrics}
    return dict(metrics)
