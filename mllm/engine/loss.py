"""The one loss of all families."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from mllm.conversation.encode import IGNORE_INDEX


def token_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy summed over trained positions, divided by ``num_items_in_batch``; labels (B, T), logits (B, T, V).

    The divisor is the number of trained tokens of the whole optimiser step (all micro-batches, all processes), so the
    split of a batch changes neither loss nor gradient; without it, the trained tokens of this batch. Every family uses
    this: a model's own loss may ignore the number (Hugging Face's BLIP does, transformers 5.23).
    """
    logits, targets = outputs.logits[:, :-1], labels[:, 1:]
    trained = targets != IGNORE_INDEX
    if num_items_in_batch is None:
        num_items_in_batch = trained.sum()
    total = cross_entropy(logits[trained].float(), targets[trained], reduction="sum")
    return total / torch.as_tensor(num_items_in_batch, device=total.device).clamp(min=1)
