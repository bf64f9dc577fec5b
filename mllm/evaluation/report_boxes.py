"""The part of the report about sets that ask for one box: kinds of errors of every set, IoU histogram of one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

from mllm.evaluation.box_errors import KINDS, RIGHT_FROM, BoxAnswer, count_kinds
from mllm.evaluation.curves import bars_svg

BINS = 20
BELOW = "#2563eb"
COLOURS = {
    "right": "#007a5a",
    "wrong instance": "#d55e00",
    "x, y swapped": "#7a5195",
    "loose box": "#56b4e9",
    "miss": "#e69f00",
    "not parsed": "#98a2b3",
}
STYLE = """
.stack{display:flex;height:14px;min-width:90px;border-radius:3px;overflow:hidden}.stack i{display:block}
.key{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px}
.two{display:grid;grid-template-columns:minmax(300px,420px) 1fr;gap:14px;align-items:center}
.two figure{margin:0}dl{margin:0;font-size:14px}dt{font-weight:600;display:inline}dd{margin:0 0 4px;display:inline}
dl div{margin-bottom:4px}
"""


def error_table(sets: Mapping[str, Collection[BoxAnswer]]) -> str:
    """A row for each named set: how many answers are of each kind, and their shares as one bar."""
    counts = {name: count_kinds(answers) for name, answers in sets.items()}
    kinds = [kind for kind in KINDS if any(kind in one for one in counts.values())]
    head = "".join(f"<th>{_key(kind)}{escape(kind)}</th>" for kind in kinds)
    rows = "".join(_row(name, one, kinds) for name, one in counts.items())
    return f"<table><tr><th>set</th>{head}<th></th></tr>{rows}</table>"


def histogram(name: str, answers: Collection[BoxAnswer]) -> str:
    """IoU of the answers that could be read, with what each kind of error means."""
    read = [answer.iou for answer in answers if answer.predicted is not None]
    bins = [0] * BINS
    for iou in read:
        bins[min(int(iou * BINS), BINS - 1)] += 1
    bars = [
        (
            count,
            f"IoU {number / BINS:.2f} – {(number + 1) / BINS:.2f}: {count}",
            COLOURS["right"] if number >= RIGHT_FROM * BINS else BELOW,
        )
        for number, count in enumerate(bins)
    ]
    figure = bars_svg(f"IoU, {name}", f"{len(read)} answers read", bars, ("0", "1"))
    meanings = "".join(
        f"<div><dt>{_key(kind)}{escape(kind)}</dt> <dd class=soft>{escape(text)}</dd></div>"
        for kind, text in KINDS.items()
    )
    return f"<div class=two>{figure}<div><dl>{meanings}</dl><p>The first kind that holds counts.</p></div></div>"


def _row(name: str, counts: Mapping[str, int], kinds: Sequence[str]) -> str:
    total = max(sum(counts.values()), 1)
    cells = "".join(_cell(counts.get(kind), total) for kind in kinds)
    parts = "".join(
        f'<i style="width:{100 * count / total:.2f}%;background:{COLOURS[kind]}" title="{escape(kind)}: {count}"></i>'
        for kind, count in counts.items()
    )
    return f"<tr><td><b>{escape(name)}</b></td>{cells}<td><div class=stack>{parts}</div></td></tr>"


def _cell(count: int | None, total: int) -> str:
    if count is None:
        return "<td>–</td>"
    return f"<td>{100 * count / total:.1f} %<br><small class=soft>{count}</small></td>"


def _key(kind: str) -> str:
    return f'<i class=key style="background:{COLOURS[kind]}"></i>'
