"""The short table that ends a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def score_table(sections: Sequence[Any]) -> str:
    """One line a set: its name, how many samples, its metrics."""
    names = list(dict.fromkeys(name for section in sections for name in section.evaluation.metrics))
    rows = [["set", "n", *names]]
    for section in sections:
        metrics = section.evaluation.metrics
        values = [f"{metrics[name]:.4f}" if name in metrics else "–" for name in names]
        rows.append([section.name, str(len(section.records)), *values])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
