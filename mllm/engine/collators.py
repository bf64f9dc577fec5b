"""Collators per mode: what the processor pads, and the notes or records that travel with it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from torch.utils.data import get_worker_info


class TrainCollator:
    """Right-padded batch with labels; the samples' notes stand under ``"notes"``."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """The batch of one step."""
        _outlive_signals()
        batch = self.processor.collate([sample.features for sample in samples], layout="right")
        batch["notes"] = [note for sample in samples for note in sample.notes]
        return batch


def _outlive_signals() -> None:
    """In a process that loads data: leave it to the training process what a cluster's signal means.

    Launchers and clusters send it to every process of the run; without its loaders training could not end its step.
    """
    if get_worker_info() is not None:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)


class GenerationCollator:
    """Left-padded prompts, and the records that the answers go into: ``(batch, records, notes)``."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, samples: Sequence[Any]) -> tuple[dict[str, Any], list[Any], list[tuple[str, str]]]:
        """The prompts of one batch with their records and notes."""
        batch = self.processor.collate([sample.features for sample in samples], layout="left")
        return batch, [sample.record for sample in samples], [note for sample in samples for note in sample.notes]
