"""Curves and bars as inline SVG: enough for loss, metrics and histograms, without a plotting library in the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 340, 170, 52, 8, 22, 8
MARKED = 12


def curve_svg(name: str, points: Sequence[tuple[float, float]]) -> str:
    """A figure of ``points`` (step, value) with its extremes as axis labels; values that are not finite are left out.

    Few points are marked one by one.
    """
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return _figure(name, "no finite value", "")
    xs, ys = zip(*points, strict=True)
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (1 - (y - y0) / ((y1 - y0) or 1)) * (HEIGHT - TOP - BOTTOM)

    places = [place(x, y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="#2563eb"/>' for x, y in places)
    drawing = (
        f'<text x="{LEFT - 6}" y="{TOP + 9}" text-anchor="end">{y1:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">{y0:.3g}</text>'
        f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.6"/>'
    )
    drawing += marks if len(places) <= MARKED else ""
    return _figure(name, f"{ys[0]:.4g} → {ys[-1]:.4g}", drawing, (f"{x0:g}", f"step {x1:g}"))


def bars_svg(name: str, note: str, bars: Sequence[tuple[int, str, str]], ends: tuple[str, str]) -> str:
    """A figure of bars (count, what the pointer shows, colour) that fill the axis between the labels ``ends``."""
    most = max((count for count, _, _ in bars), default=0) or 1
    width = (WIDTH - LEFT - RIGHT) / max(len(bars), 1)
    drawing = f'<text x="{LEFT - 6}" y="{TOP + 9}" text-anchor="end">{most}</text>'
    for number, (count, text, colour) in enumerate(bars):
        height = count / most * (HEIGHT - TOP - BOTTOM)
        drawing += (
            f'<rect x="{LEFT + number * width + 0.5:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{width - 1:.1f}" '
            f'height="{height:.1f}" fill="{colour}"><title>{escape(text)}</title></rect>'
        )
    return _figure(name, note, drawing, ends)


def _figure(name: str, note: str, drawing: str, ends: tuple[str, str] = ("", "")) -> str:
    axes = f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#cfd4dc"/>'
    labels = (
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{escape(ends[0])}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(ends[1])}</text>'
    )
    return (
        f"<figure class=card><figcaption><b>{escape(name)}</b> <span class=soft>{escape(note)}</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" font-size="11" fill="#667085">{axes}{labels}{drawing}</svg>'
        "</figure>"
    )
