"""Collators per mode: what the processor pads, and the notes or records that travel with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TrainCollator:
    """Right-padded batch with labels; the samples' notes stand under ``"notes"``."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """The batch of one step."""
        batch = self.processor.collate([sample.features for sample in samples], layout="right")
        batch["notes"] = [note for sample in samples for note in sample.notes]
        return batch


class GenerationCollator:
    """Left-padded prompts, and the records that the answers go into: ``(batch, records, notes)``."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, samples: Sequence[Any]) -> tuple[dict[str, Any], list[Any], list[tuple[str, str]]]:
        """The prompts of one batch with their records and notes."""
        batch = self.processor.collate([sample.features for sample in samples], layout="left")
        return batch, [sample.record for sample in samples], [note for sample in samples for note in sample.notes]
