"""Muon for the matrices of hidden layers, AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from mllm.errors import ConfigError

_TABLES = ("embed", "lm_head")


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon's rule is meant for it: a matrix between hidden layers, no table of embeddings, no output head."""
    return parameter.ndim == 2 and not any(word in name for word in _TABLES)


class MuonWithAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` and ``torch.optim.AdamW`` side by side; schedulers see the groups of both.

    Muon orthogonalises each matrix's momentum (K. Jordan and others, 2024, kellerjordan.github.io/posts/muon); its
    step is scaled to AdamW's root mean square (J. Liu and others, arXiv 2502.16982), so that a rate that suits AdamW
    suits it.

    Args:
        matrices: groups of hidden matrices with their own ``lr`` and ``weight_decay``.
        others: groups for AdamW.
        options: what AdamW is made with (``lr``, ``betas``, ``eps``, …).
    """

    def __init__(
        self, matrices: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], options: dict[str, Any]
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(f"muon_lr needs torch.optim.Muon (torch 2.9 or newer), this is torch {torch.__version__}")
        self.parts = [
            torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, **options),
        ]
        super().__init__([*matrices, *others], {})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of both."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"muon": self.parts[0].state_dict(), "adamw": self.parts[1].state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of both; the groups that a scheduler holds are renewed with them."""
        for part, name in zip(self.parts, ("muon", "adamw"), strict=True):
            part.load_state_dict(state_dict[name])
        self.param_groups = [group for part in self.parts for group in part.param_groups]
