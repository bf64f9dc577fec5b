"""One self-contained HTML page of a run: score table with intervals, curves, pictures with drawn boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mllm.evaluation.base import Evaluation
from mllm.evaluation.curves import curve_svg
from mllm.evaluation.page import data_url, html_page
from mllm.structures import Record
from mllm.utils.files import atomic_write

STYLE = """
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:14px}
.card{overflow-wrap:anywhere}
.card svg{width:100%;height:auto;max-height:260px;display:block;margin-bottom:6px}.card small{color:var(--soft)}
.truth{color:var(--truth)}.pred{color:var(--pred)}code{font-size:13px}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:14px}
.curves figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px}
"""


@dataclass
class Section:
    """One evaluated set: its name, outcome and records.

    ``image_of`` opens the picture of an index for the gallery, None for one of text alone.
    """

    name: str
    evaluation: Evaluation
    records: Sequence[Record]
    image_of: Callable[[int], Image.Image | None] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def write_report(path: Path, title: str, sections: Sequence[Section], log_history: Sequence[Mapping[str, Any]]) -> None:
    """Write the page; the last section with pictures gives the gallery."""
    parts = [f"<h1>{escape(title)}</h1>", _score_table(sections), _curves(log_history)]
    parts += [_gallery(section) for section in sections if section.image_of is not None]
    parts += map(_category_tables, sections)
    atomic_write(path, html_page(title, "".join(parts), style=STYLE))


def _score_table(sections: Sequence[Section]) -> str:
    names = list(dict.fromkeys(name for section in sections for name in section.evaluation.metrics))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for section in sections:
        cells = "".join(_cell(section.evaluation, name) for name in names)
        signature = escape(section.evaluation.signature)
        rows.append(f"<tr><td><b>{escape(section.name)}</b><br><small class=soft>{signature}</small></td>{cells}</tr>")
    note = "<p>Small numbers: 95 % bootstrap interval, resampled by image.</p>"
    return f"<h2>Scores</h2>{note}<table><tr><th>set</th>{head}</tr>{''.join(rows)}</table>"


def _category_tables(section: Section) -> str:
    parts = []
    for dimension, table in section.evaluation.tables.items():
        names = list(dict.fromkeys(name for row in table.values() for name in row))
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        rows = "".join(
            f"<tr><td>{escape(category)}</td>{''.join(f'<td>{_number(row.get(name))}</td>' for name in names)}</tr>"
            for category, row in table.items()
        )
        title = escape(f"{section.name} by {dimension.replace('_', ' ')}")
        parts.append(f"<h2>{title}</h2><table><tr><th></th>{head}</tr>{rows}</table>")
    return "".join(parts)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _cell(evaluation: Evaluation, name: str) -> str:
    if name not in evaluation.metrics:
        return "<td>–</td>"
    low_high = evaluation.intervals.get(name)
    interval = f"<br><small class=soft>{low_high[0]:.3f} – {low_high[1]:.3f}</small>" if low_high else ""
    return f"<td>{evaluation.metrics[name]:.4f}{interval}</td>"


def _curves(log_history: Sequence[Mapping[str, Any]]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for row in log_history:
        for name, value in row.items():
            wanted = name in ("loss", "learning_rate", "grad_norm") or name.startswith("eval_")
            if wanted and isinstance(value, (int, float)) and not name.endswith(("_runtime", "_samples")):
                series.setdefault(name, []).append((row.get("step", 0), float(value)))
    ordered = sorted(series.items(), key=lambda one: one[0].startswith("eval_"))
    figures = [curve_svg(name, points) for name, points in ordered if len(points) > 1]
    return f"<h2>Curves</h2><div class=curves>{''.join(figures)}</div>" if figures else ""


def _gallery(section: Section, each: int = 8) -> str:
    scores = section.evaluation.scores
    key = "mean_iou" if scores and "mean_iou" in scores[0] else None
    parsed = [row for row in scores if "failure" not in row]
    ordered = sorted(parsed, key=lambda row: (row[key], row["index"])) if key else parsed
    groups = {
        "worst": ordered[:each],
        "best": ordered[each:][::-1][:each],
        "not parsed": [row for row in scores if "failure" in row][:each],
    }
    records = {record.index: record for record in section.records}
    parts = []
    for name, rows in groups.items():
        if rows:
            cards = "".join(_card(records[row["index"]], row, key, section.image_of) for row in rows)
            parts.append(f"<h2>{escape(section.name)}: {name}</h2><div class=cards>{cards}</div>")
    return "".join(parts)


def _card(
    record: Record, row: Mapping[str, Any], key: str | None, image_of: Callable[[int], Image.Image | None]
) -> str:
    value = row.get("value")
    predicted = [value] if isinstance(value, (list, tuple)) and len(value) == 4 else []
    image = None if record.failure else image_of(record.index)
    picture = "" if image is None else boxes_svg(image, record.truth.get("boxes") or [], predicted)
    score = f"IoU {row[key]:.3f}" if key else ""
    reason = f" · {escape(str(row['failure']))}" if "failure" in row else ""
    return (
        f"<div class=card>{picture}<b>{escape(str(record.meta.get('prompt', '')))}</b><br>"
        f"<span class=truth>{escape(record.target)}</span><br><span class=pred>{escape(record.pred)}</span><br>"
        f"<small>#{record.index} {score}{reason}</small></div>"
    )


def boxes_svg(image: Image.Image, truth: Sequence[Any], predicted: Sequence[Any]) -> str:
    """The picture with true boxes (green) and predicted ones (red, dashed), in the original's pixels."""
    width, height = image.size
    stroke = max(width, height) / 150
    rectangles = []
    for boxes, colour, dash in ((truth, "#12855a", ""), (predicted, "#d92d20", f"{3 * stroke} {2 * stroke}")):
        for x0, y0, x1, y1 in boxes:
            rectangles.append(
                f'<rect x="{x0:.2f}" y="{y0:.2f}" width="{max(x1 - x0, 0):.2f}" height="{max(y1 - y0, 0):.2f}" '
                f'fill="none" stroke="{colour}" stroke-width="{stroke:.2f}" stroke-dasharray="{dash}"/>'
            )
    return (
        f'<svg viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" href="{data_url(image)}"/>'
        f"{''.join(rectangles)}</svg>"
    )
