"""A curve as inline SVG: enough for loss and metrics, without a plotting library in the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 170, 52, 22, 8


def curve_svg(name: str, points: Sequence[tuple[float, float]]) -> str:
    """A figure of ``points`` (step, value) with its extremes as axis labels."""
    xs, ys = zip(*points, strict=True)
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> str:
        across = LEFT + (x - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - 8)
        up = TOP + (1 - (y - y0) / ((y1 - y0) or 1)) * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f},{up:.1f}"

    line = " ".join(place(x, y) for x, y in points)
    labels = (
        f'<text x="{LEFT - 6}" y="{TOP + 9}" text-anchor="end">{y1:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">{y0:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{x0:g}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">step {x1:g}</text>'
    )
    axes = f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 8}" fill="none" stroke="#cfd4dc"/>'
    return (
        f"<figure><figcaption><b>{escape(name)}</b> <span class=soft>{ys[0]:.4g} → {ys[-1]:.4g}</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" font-size="11" fill="#667085">{axes}{labels}'
        f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.6"/></svg></figure>'
    )
