"""Predict a named set, score it, write its files; what training, evaluation and prediction all call."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm.engine.predict import Generator, predict
from mllm.engine.run_folder import write_evaluations, write_manifest, write_scores
from mllm.engine.trainer import with_prefix
from mllm.errors import ConfigError
from mllm.evaluation.base import Evaluation, Evaluator
from mllm.evaluation.report import Section


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
        declared = [metric for evaluator in self.evaluators for metric in evaluator.metrics]
        twice = sorted({metric for metric in declared if declared.count(metric) > 1})
        if twice:
            raise ConfigError(f"{name}: two evaluators declare the metric {twice[0]!r}; keep one of them")

    @property
    def metrics(self) -> list[str]:
        """The declared metrics of all evaluators, first ones first."""
        return [metric for evaluator in self.evaluators for metric in evaluator.metrics]

    def run(
        self, generator: Generator, folder: Path, prefix: str, notes: Any = None
    ) -> tuple[dict[str, float], list[Section]]:
        """Metrics with ``prefix`` on every rank, and the report's sections; rank 0 writes records, scores, manifest."""
        started = time.perf_counter()
        path = folder / f"{prefix}_predictions.jsonl"
        on_notes = notes.add if notes is not None else None
        records = predict(generator, self.dataset, path, f"{self.name}", on_notes)
        for evaluator in self.evaluators:
            evaluator.formatter = generator.processor.formatter
        evaluations = [evaluator.evaluate(records) for evaluator in self.evaluators]
        metrics = _joined(evaluations)
        if generator.accelerator.is_main_process:
            self._write(folder, prefix, generator, records, evaluations)
        metrics["runtime"] = round(time.perf_counter() - started, 2)
        metrics["samples"] = len(records)
        sections = [Section(self.name, evaluation, records, self._image_of) for evaluation in evaluations]
        return with_prefix(metrics, prefix), sections

    def _write(
        self, folder: Path, prefix: str, generator: Generator, records: Sequence[Any], evaluations: Sequence[Evaluation]
    ) -> None:
        write_manifest(
            folder / f"{prefix}_manifest.json",
            processor=generator.processor,
            dataset=self.dataset.dataset,
            dataset_cfg=self.dataset_cfg,
            records=records,
            evaluators=self.evaluator_cfgs,
            modules=[type(evaluator).__module__ for evaluator in self.evaluators],
            options=generator.options,
        )
        rows: dict[int, dict[str, Any]] = {}
        for evaluation in evaluations:
            for row in evaluation.scores:
                rows.setdefault(row["index"], {}).update(row)
        write_scores(folder / f"{prefix}_scores.jsonl", list(rows.values()))
        write_evaluations(folder / f"{prefix}_scores.json", evaluations, self.evaluator_cfgs, len(records))

    def _image_of(self, index: int) -> Any:
        images = self.dataset.item(index).images
        return images[0] if images else None


def _joined(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    metrics: Mapping[str, float] = {}
    for evaluation in evaluations:
        metrics = {**metrics, **evaluation.metrics}
    return dict(metrics)
