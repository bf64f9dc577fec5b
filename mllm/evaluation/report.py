"""One self-contained HTML page of a run: scores with intervals, curves, kinds of errors, pictures with drawn boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from mllm.evaluation import gallery, report_boxes
from mllm.evaluation.base import Evaluation, Table
from mllm.evaluation.box_errors import box_answers
from mllm.evaluation.curves import curve_svg
from mllm.evaluation.gallery import ImageOf
from mllm.evaluation.page import html_page
from mllm.structures import Record
from mllm.utils.files import atomic_write

STYLE = """
.scores{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:14px;margin-bottom:16px}
.scores strong{display:block;font-size:26px;line-height:1.3}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px}.curves figure{margin:0}
summary{font-weight:600;margin:14px 0 8px;cursor:pointer}.wide{overflow-x:auto}
"""
CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "data_wait", "memory_gb")
LAST = ("eval_failure_rate", "grad_norm", "tokens_per_second", "data_wait", "memory_gb")


@dataclass
class Section:
    """One evaluated set: its name, outcome and records.

    ``image_of`` opens the picture of an index for the gallery, None for one of text alone.
    """

    name: str
    evaluation: Evaluation
    records: Sequence[Record]
    image_of: ImageOf | None = None


def write_report(path: Path, title: str, sections: Sequence[Section], log_history: Sequence[Mapping[str, Any]]) -> None:
    """Write the page. The first set with pictures, or else the last, has the cards and the histogram.

    ``log_history`` holds rows with ``step`` and numbers by name, as ``trainer_state.json`` does.
    """
    main = next((section for section in sections if section.image_of is not None), sections[-1])
    parts = [f"<h1>{escape(title)}</h1>", _score_cards(main), _score_table(sections), _curves(log_history)]
    parts += [_boxes(sections, main), *map(_gallery, sections), *(_tables(one, one is main) for one in sections)]
    style = STYLE + gallery.STYLE + report_boxes.STYLE
    atomic_write(path, html_page(title, "".join(parts), style=style))


def _score_cards(section: Section) -> str:
    evaluation = section.evaluation
    cards = "".join(
        f"<div class=card><span class=soft>{escape(name)}</span><strong>{value:.4f}</strong>"
        f"{_interval(evaluation, name)}</div>"
        for name, value in evaluation.metrics.items()
    )
    return f"<h2>{escape(section.name)}: {len(section.records)} samples</h2><div class=scores>{cards}</div>"


def _score_table(sections: Sequence[Section]) -> str:
    names = list(dict.fromkeys(name for section in sections for name in section.evaluation.metrics))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for section in sections:
        cells = "".join(_cell(section.evaluation, name) for name in names)
        signature = escape(section.evaluation.signature)
        rows.append(f"<tr><td><b>{escape(section.name)}</b><br><small class=soft>{signature}</small></td>{cells}</tr>")
    note = "<p>Small numbers: 95 % bootstrap interval, resampled by image.</p>"
    table = f"<div class=wide><table><tr><th>set</th>{head}</tr>{''.join(rows)}</table></div>"
    return f"<h2>Scores</h2>{note}{table}"


def _cell(evaluation: Evaluation, name: str) -> str:
    if name not in evaluation.metrics:
        return "<td>–</td>"
    interval = _interval(evaluation, name)
    return f"<td>{evaluation.metrics[name]:.4f}{'<br>' if interval else ''}{interval}</td>"


def _interval(evaluation: Evaluation, name: str) -> str:
    low_high = evaluation.intervals.get(name)
    return f"<small class=soft>{low_high[0]:.3f} – {low_high[1]:.3f}</small>" if low_high else ""


def _curves(log_history: Sequence[Mapping[str, Any]]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for row in log_history:
        for name, value in row.items():
            wanted = name in CURVES or name.startswith("eval_")
            if wanted and isinstance(value, (int, float)) and not name.endswith(("_runtime", "_samples")):
                series.setdefault(name, []).append((row.get("step", 0), float(value)))
    ordered = sorted(series.items(), key=lambda one: (one[0] in LAST, one[0].startswith("eval_")))
    figures = [curve_svg(name, points) for name, points in ordered if len(points) > 1]
    return f"<h2>Curves</h2><div class=curves>{''.join(figures)}</div>" if figures else ""


def _boxes(sections: Sequence[Section], main: Section) -> str:
    """Nothing where no set asks for one box."""
    answers = {}
    for section in sections:
        if found := box_answers(section.evaluation, section.records):
            answers[section.name] = found
    if not answers:
        return ""
    shown = main.name if main.name in answers else next(iter(answers))
    table = report_boxes.error_table({name: found.values() for name, found in answers.items()})
    figure = report_boxes.histogram(shown, answers[shown].values())
    return f"<h2>Boxes</h2><div class=wide>{table}</div>{figure}"


def _gallery(section: Section) -> str:
    if section.image_of is None:
        return ""
    kinds = {index: answer.kind for index, answer in box_answers(section.evaluation, section.records).items()}
    groups = gallery.gallery(section.evaluation, section.records, section.image_of, notes=kinds)
    return "".join(
        f"<h2>{escape(section.name)}: {escape(name)}</h2>{gallery.LEGEND}<div class=cards>{cards}</div>"
        for name, cards in groups.items()
    )


def _tables(section: Section, is_open: bool) -> str:
    """Scores by category; those of sets that are not the main one unfold."""
    tables = "".join(_table(dimension, table) for dimension, table in section.evaluation.tables.items())
    if not tables:
        return ""
    title = escape(f"{section.name} by category")
    if is_open:
        return f"<h2>{title}</h2>{tables}"
    return f"<details><summary>{title}</summary>{tables}</details>"


def _table(dimension: str, table: Table) -> str:
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><td>{escape(category)}</td>{''.join(f'<td>{_number(row.get(name))}</td>' for name in names)}</tr>"
        for category, row in table.items()
    )
    return f"<table><tr><th>{escape(dimension.replace('_', ' '))}</th>{head}</tr>{rows}</table><br>"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
