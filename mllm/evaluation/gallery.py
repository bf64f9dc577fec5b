"""Cards of single answers: the original picture with what is true and what was predicted, question and answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from mllm.evaluation.base import Evaluation
from mllm.evaluation.page import data_url, escaped
from mllm.structures import Box, Point, Record

ImageOf = Callable[[int], Image.Image | None]

# Bluish green and vermilion of Okabe and Ito's palette, which colour-blind people tell apart; the predicted is dashed.
STYLE = """
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:14px}
.cards .card{overflow-wrap:anywhere}.cards small{color:var(--soft)}.cards p{margin:3px 0;font-size:14px}
.picture{width:100%;height:auto;max-height:260px;display:block;margin-bottom:6px}
.cards .truth,.truth{color:var(--truth)}.cards .predicted,.predicted{color:var(--pred)}
.place *{fill:none;vector-effect:non-scaling-stroke;stroke:currentColor;stroke-width:2.5px}
.rim *{stroke:#fff;stroke-width:5px;opacity:.85}.predicted.box *{stroke-dasharray:7 4}
"""
LEGEND = "<p><b class=truth>Truth</b> and <b class=predicted>prediction</b> (dashed); points are crosses.</p>"


@dataclass
class Places:
    """Boxes and points on one picture, in original pixels."""

    boxes: Sequence[Box] = field(default_factory=list)
    points: Sequence[Point] = field(default_factory=list)


def true_places(record: Record) -> Places:
    """What the truth tells: its boxes (those of its phrases where it has phrases) and points."""
    phrases = [box for phrase in record.truth.get("phrases") or () for box in phrase.get("boxes") or ()]
    return Places(record.truth.get("boxes") or phrases, record.truth.get("points") or [])


def predicted_places(value: Any) -> Places:
    """What an evaluator's parsed value shows: a box, a point, or the groups of boxes of a sentence."""
    if isinstance(value, Mapping):
        return Places([box for group in value.get("groups") or () for box in group])
    numbers = isinstance(value, (list, tuple)) and all(isinstance(one, (int, float)) for one in value)
    length = len(value) if numbers else 0
    return Places([value] if length == 4 else [], [value] if length == 2 else [])


def ranking_metric(evaluation: Evaluation) -> str | None:
    """What orders single answers: ``mean_iou`` where each has one, else the first metric that each has a value of."""
    row = evaluation.scores[0] if evaluation.scores else {}
    return next((name for name in ("mean_iou", *evaluation.metrics) if isinstance(row.get(name), (int, float))), None)


def gallery(
    evaluation: Evaluation,
    records: Sequence[Record],
    image_of: ImageOf,
    *,
    notes: Mapping[int, str] | None = None,
    each: int = 8,
    seed: int = 0,
) -> dict[str, str]:
    """Markup of at most ``each`` cards under "worst", "not parsed" and "random"; nobody stands in two of them.

    Worst are the lowest values of ``ranking_metric``; left out where there is none. ``notes`` tells of an answer by
    its index.
    """
    key = ranking_metric(evaluation)
    parsed = [row for row in evaluation.scores if "failure" not in row]
    worst = sorted(parsed, key=lambda row: (row[key], row["index"]))[:each] if key else []
    shown = {row["index"] for row in worst}
    rest = [row for row in parsed if row["index"] not in shown]
    chosen = sorted(random.Random(seed).sample(rest, min(each, len(rest))), key=lambda row: row["index"])
    unread = [row for row in evaluation.scores if "failure" in row][:each]
    by_index = {record.index: record for record in records}
    groups = {f"worst by {key}": worst, "not parsed": unread, "random": chosen}
    return {
        name: "".join(_scored_card(by_index[row["index"]], row, key, image_of, notes or {}) for row in rows)
        for name, rows in groups.items()
        if rows
    }


def _scored_card(
    record: Record, row: Mapping[str, Any], key: str | None, image_of: ImageOf, notes: Mapping[int, str]
) -> str:
    score = f"{key} {row[key]:.3f}" if key else ""
    said = (str(row.get("failure", "")), score, "" if "failure" in row else notes.get(record.index, ""))
    image = None if record.failure else image_of(record.index)
    return answer_card(record, image, predicted_places(row.get("value")), " · ".join(filter(None, said)))


def answer_card(record: Record, image: Image.Image | None, predicted: Places, note: str = "") -> str:
    """One answer: picture (where there is one), question, true and predicted text, ``note``."""
    picture = "" if image is None else picture_svg(image, true_places(record), predicted)
    return (
        f"<div class=card>{picture}<b>{escaped(str(record.meta.get('prompt', '')))}</b>"
        f"<p class=truth>{escaped(record.target)}</p><p class=predicted>{escaped(record.pred)}</p>"
        f"<small>{escaped(f'#{record.index} {note}')}</small></div>"
    )


def picture_svg(image: Image.Image, truth: Places, predicted: Places) -> str:
    """The picture with boxes as rectangles and points as crosses, in the original's pixels."""
    width, height = image.size
    arm = max(width, height) / 30
    shapes = [
        (f"{name} {kind}", shape)
        for kind, places in (("truth", truth), ("predicted", predicted))
        for name, found in (("box", map(_box, places.boxes)), ("point", (_cross(one, arm) for one in places.points)))
        for shape in found
    ]
    picture = f'<image width="{width}" height="{height}" href="{data_url(image)}"/>'
    # A white rim lets lines stand out on any picture; all rims lie below all lines, which may be in the same place.
    rims = "".join(f'<g class="place rim">{shape}</g>' for _, shape in shapes)
    lines = "".join(f'<g class="place {kind}">{shape}</g>' for kind, shape in shapes)
    return f'<svg class=picture viewBox="0 0 {width} {height}">{picture}{rims}{lines}</svg>'


def _box(box: Sequence[float]) -> str:
    x0, y0, x1, y1 = box
    size = f'width="{max(x1 - x0, 0):.2f}" height="{max(y1 - y0, 0):.2f}"'
    return f'<rect x="{x0:.2f}" y="{y0:.2f}" {size}/>'


def _cross(point: Sequence[float], arm: float) -> str:
    x, y = point
    left, right, top, bottom = (f"{value:.2f}" for value in (x - arm, x + arm, y - arm, y + arm))
    return f'<path d="M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}"/>'
