"""What of a model is trained: freezing by part or pattern, learning rates by part, and the report of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from mllm.errors import ConfigError, choices
from mllm.models.base import Family


def freeze(model: nn.Module, family: Family, patterns: Sequence[str]) -> None:
    """Stop the gradient of every parameter whose part is named, or whose name the regular expression matches.

    ConfigError for a pattern that freezes nothing: a misspelt one would train what should stand still.
    """
    parts = {family.part_of(name) for name, _ in model.named_parameters()}
    for pattern in patterns:
        hit = False
        for name, parameter in model.named_parameters():
            if family.part_of(name) == pattern or (pattern not in parts and re.search(pattern, name)):
                parameter.requires_grad_(False)
                hit = True
        if not hit:
            raise ConfigError(f"model_args.freeze: {pattern!r} matches no parameter; {choices(pattern, parts)}")


def trainable_report(model: nn.Module, family: Family) -> dict[str, tuple[int, int]]:
    """(trained, all) parameters of each part, in the order in which they appear."""
    report: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        trained, total = report.get(family.part_of(name), (0, 0))
        count = getattr(parameter, "ds_numel", parameter.numel())
        report[family.part_of(name)] = (trained + count * parameter.requires_grad, total + count)
    return report


def format_report(report: Mapping[str, tuple[int, int]]) -> str:
    """The report as aligned lines, the sum last."""
    rows = [*report.items(), ("all", tuple(map(sum, zip(*report.values(), strict=True))))]
    return "\n".join(
        f"  {part:<12}{trained:>16,} of {total:>16,} trained ({100 * trained / max(total, 1):.1f} %)"
        for part, (trained, total) in rows
    )
