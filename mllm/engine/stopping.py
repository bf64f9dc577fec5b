"""Ending generation at an end mark that is text, not a control token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria

# Tokens of the tail that are read: more than the longest mark can be cut into.
TAIL = 32


class StopAtMarks(StoppingCriteria):
    """Ends a row once its new text holds one of ``marks``, however a tokenizer cuts them; for one call of ``generate``.

    The prompt is not looked at: it may hold the mark (``###Assistant:``). A mark of white space counts after other text
    alone, which transformers' ``stop_strings`` (5.23) cannot say; those also read the whole vocabulary at every call.
    """

    def __init__(self, tokenizer: Any, marks: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.marks = list(marks)
        self.start: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Whether each row of ``input_ids`` (B, T) has ended, (B,)."""
        if self.start is None:  # the first call comes after the first new token
            self.start = input_ids.shape[1] - 1
        tail = input_ids[:, max(self.start, input_ids.shape[1] - TAIL) :]
        texts = self.tokenizer.batch_decode(tail, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ended = [any(mark in text.lstrip() for mark in self.marks) for text in texts]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)
