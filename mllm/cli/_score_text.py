"""What ``mllm score`` prints: metrics with intervals, tables by category, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mllm.pipeline.scoring.compare import Comparison
from mllm.pipeline.scoring.scored import ScoredSet


def scored_text(one: ScoredSet) -> str:
    """A set: its size, a table an evaluator, its signature, its tables by category."""
    parts = [f"{one.name}: {one.samples} records"]
    for scored in one.scored:
        parts += [_metrics(scored.summary), f"signature: {scored.summary['signature']}"]
        failures = scored.summary["failures"]
        if failures:
            parts.append("failures: " + ", ".join(f"{reason} {count}" for reason, count in failures.items()))
        parts += [f"\n{_categories(name, table)}" for name, table in scored.summary["tables"].items()]
    return "\n".join(parts)


def comparison_text(one: Comparison) -> str:
    """A table of differences, and the signatures."""
    rows = [["metric", "A", "B", "B - A", "95 % interval", "B > A"]]
    for each in one.differences:
        interval = "–" if each.interval is None else f"{each.interval[0]:+.4f} … {each.interval[1]:+.4f}"
        share = "–" if each.b_greater is None else f"{each.b_greater:.1%}"
        rows.append([each.metric, _number(each.a), _number(each.b), f"{each.b - each.a:+.4f}", interval, share])
    name = one.a if one.a == one.b else f"{one.a} and {one.b}"
    signatures = [f"{side}: {text}" for pair in one.signatures for side, text in zip("AB", pair, strict=True)]
    return "\n".join([f"{name}: {one.samples} common records", table(rows), *signatures])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first one left, the others right, under a ruled head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * len(lines[0]), *lines[1:]))


def _metrics(summary: Mapping[str, Any]) -> str:
    rows = [["metric", "value", "95 % interval"]]
    for name, value in summary["metrics"].items():
        ends = summary["intervals"].get(name)
        rows.append([name, _number(value), f"{_number(ends[0])} … {_number(ends[1])}" if ends else ""])
    return table(rows)


def _categories(dimension: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    rows = [[f"by {dimension.replace('_', ' ')}", *names]]
    rows += [[category, *(_number(row.get(name)) for name in names)] for category, row in found.items()]
    return table(rows)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "–" if value is None else str(value)
