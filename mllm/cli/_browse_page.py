"""The page of ``mllm browse``: a card for each row, filters by source and by problem."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import Image

from mllm.conversation import Span
from mllm.dataset.browsing import Place, Shown
from mllm.dataset.mixture import Source
from mllm.evaluation.page import data_url, escaped, html_page

# Vermilion and blue of Okabe and Ito's palette, which colour-blind people tell apart; line style and underline say the
# same without colour.
STYLE = """
:root{--answer:#d55e00;--question:#0072b2}
body{max-width:1240px}.filters{position:sticky;top:0;z-index:1;background:var(--page);padding:10px 0;
margin:14px 0 4px;border-bottom:1px solid var(--line);display:flex;gap:18px;flex-wrap:wrap;align-items:center}
select{font:inherit;max-width:320px;padding:3px 6px}
.legend{display:flex;gap:20px;flex-wrap:wrap;margin:10px 0;font-size:14px}
.item{display:grid;grid-template-columns:320px 1fr;gap:18px;margin:14px 0}.item[hidden]{display:none}
.item header{margin-bottom:6px}.item header b{font-size:16px}.item small{color:var(--soft);overflow-wrap:anywhere}
.text{font:14px/1.75 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere;
color:#475467;unicode-bidi:plaintext;max-height:440px;overflow-y:auto}
mark{color:var(--ink);background:#fdeedd;text-decoration:underline 2px var(--answer);text-underline-offset:4px}
.expected{border-left:3px solid var(--answer);padding-left:10px;color:var(--ink)}.text .expected{display:block}
.raw{display:block;border-left:3px solid var(--soft);padding-left:10px}
.image{border:1px solid var(--soft);border-radius:4px;padding:0 5px;font-size:12px;white-space:nowrap}
.at{color:var(--question);border-bottom:2px dashed var(--question)}mark .at,.expected .at{color:var(--answer);border:0}
.at::after{content:attr(data-n);font:600 10px system-ui,sans-serif;vertical-align:super;margin-left:2px}
.nl::before{content:"\\21b5";color:var(--soft)}
.canvas{width:100%;height:auto;display:block;border:1px solid var(--line);margin-bottom:8px}
.canvas.small image{image-rendering:pixelated}
.place *{fill:none;vector-effect:non-scaling-stroke}.place .halo{stroke:#fff;stroke-width:5px;opacity:.85}
.place .line{stroke:var(--question);stroke-width:2.5px;stroke-dasharray:7 4}
.place.answer .line{stroke:var(--answer);stroke-dasharray:none}
.place text{fill:var(--question);font-weight:700;font-family:system-ui,sans-serif;paint-order:stroke;stroke:#fff;
stroke-width:3px}.place.answer text{fill:var(--answer)}
.place.on .line{stroke-width:6px}.at.on{background:#cfe8f7}mark .at.on{background:#ffd3a8}
.problem{border:1px solid var(--ink);border-left-width:6px;border-radius:4px;padding:4px 8px;margin:4px 0;
font-size:14px;overflow-wrap:anywhere}
.legend svg{width:26px;height:14px;vertical-align:-2px;margin-right:5px}
"""
SCRIPT = """
const source = document.getElementById("source"), problem = document.getElementById("problem");
function filter() {
  let left = 0;
  for (const item of document.querySelectorAll(".item")) {
    const has = JSON.parse(item.dataset.problems);
    const fits = { "": true, any: has.length > 0, none: has.length === 0 }[problem.value];
    item.hidden = !((source.value === "" || item.dataset.source === source.value)
      && (fits === undefined ? has.includes(problem.value) : fits));
    left += !item.hidden;
  }
  document.getElementById("left").textContent = left;
}
source.onchange = problem.onchange = filter;
filter();
for (const one of document.querySelectorAll("[data-n]")) {
  const numbers = one.dataset.n.split(" "), item = one.closest(".item");
  const light = on => item.querySelectorAll("[data-n]").forEach(
    other => other.dataset.n.split(" ").some(n => numbers.includes(n)) && other.classList.toggle("on", on));
  one.onmouseenter = () => light(true);
  one.onmouseleave = () => light(false);
}
"""


def browse_page(title: str, note: str, rows: Sequence[Shown], sources: Mapping[str, Source], generation: bool) -> bytes:
    """The file; ``note`` is a line under the title, ``generation`` says that rows are prompts that train nothing."""
    kinds = Counter(kind for shown in rows for kind in shown.problems)
    parts = [f"<h1>{escaped(title)}</h1><p>{escaped(note)}</p>", _source_table(rows, sources), _legend(generation)]
    parts += [_filters(list(sources), kinds, len(rows)), *(_card(shown, list(sources)) for shown in rows)]
    return html_page(title, "".join(parts), style=STYLE, script=SCRIPT)


def _source_table(rows: Sequence[Shown], sources: Mapping[str, Source]) -> str:
    lines = []
    for name, source in sources.items():
        here = [shown for shown in rows if shown.source == name]
        good = [shown for shown in here if shown.tokens()]
        problems = sum(bool(shown.problems) for shown in here)
        means = [_mean([shown.tokens(*kinds) for shown in good]) for kinds in ((), ("trained",), ("image",))]
        cells = [f"{source.rows:,}", f"{round(source.samples):,}", str(len(here)), str(problems), *means]
        lines.append(f"<tr><td>{escaped(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    names = ("source", "rows", "samples an epoch", "shown", "with a problem", "tokens", "trained", "image")
    head = "".join(f"<th>{name}</th>" for name in names)
    note = (
        "Tokens: means of the rows shown. Boxes and points are read out of the text and drawn on the model's own image."
    )
    return f"<table><tr>{head}</tr>{''.join(lines)}</table><small class=soft>{note}</small>"


def _mean(values: Sequence[int]) -> str:
    return f"{sum(values) / len(values):.1f}" if values else "–"


def _legend(generation: bool) -> str:
    sample = '<svg viewBox="0 0 26 14"><g class="place{}"><rect class=line x=2 y=2 width=22 height=10 /></g></svg>'
    answer = "<span class=expected>expected answer</span>, not read" if generation else "<mark>trained text</mark>"
    return (
        f"<div class=legend><span>{answer}</span><span class=text>prompt</span>"
        f"<span>{sample.format(' answer')}place in an answer</span><span>{sample.format('')}place in a question</span>"
        "</div>"
    )


def _filters(sources: Sequence[str], kinds: Mapping[str, int], count: int) -> str:
    by_source = "".join(f"<option value={i}>{escaped(name)}</option>" for i, name in enumerate(sources))
    by_kind = "".join(f'<option value="{escaped(kind)}">{escaped(kind)} ({n})</option>' for kind, n in kinds.items())
    return (
        f"<div class=filters><label>source <select id=source><option value=''>all</option>{by_source}</select></label>"
        "<label>problem <select id=problem><option value=''>all rows</option><option value=any>any problem</option>"
        f"<option value=none>no problem</option>{by_kind}</select></label>"
        f"<span><b id=left>{count}</b> of {count}</span></div>"
    )


def _card(shown: Shown, sources: Sequence[str]) -> str:
    pictures = []
    for number, image in enumerate(shown.images):
        pictures.append(canvas_svg(image, [place for place in shown.places if place.image == number]))
    counts = f" · {shown.tokens()} tokens: {shown.tokens('trained')} trained, {shown.tokens('image')} image"
    size = ", ".join(f"{image.width}x{image.height}" for image in shown.images) or "no image"
    size += " (original)" if shown.images and not shown.tokens() else ""
    problems = "".join(
        f"<div class=problem><b>{escaped(kind)}</b>: {escaped(detail)}</div>" for kind, detail in shown.problems.items()
    )
    kinds = escaped(json.dumps(list(shown.problems)))
    return (
        f'<article class="item card" data-source={sources.index(shown.source)} data-problems="{kinds}">'
        f"<div>{''.join(pictures)}<small>{size}</small></div><div><header><b>#{shown.index}</b> "
        f"{escaped(shown.source)}<br><small>{escaped(shown.where)}{counts if shown.tokens() else ''}</small></header>"
        f"{problems}<div class=text>{text_markup(shown.spans, shown.places)}</div></div></article>"
    )


def canvas_svg(image: Image.Image, places: Sequence[Place]) -> str:
    """The image, enlarged to the width of its column, with numbered places in pixels of the canvas."""
    width, height = image.size
    # Where a question and an answer name the same place, the answer's form shows.
    each = {place.number: place for place in sorted(places, key=lambda place: place.answer)}
    drawn = "".join(_place_svg(place, width, height) for place in each.values())
    small = " small" if max(width, height) <= 128 else ""
    return (
        f'<svg class="canvas{small}" viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" '
        f'href="{data_url(image, 640)}"/>{drawn}</svg>'
    )


def _place_svg(place: Place, width: int, height: int) -> str:
    pixels = [value * (width, height)[i % 2] for i, value in enumerate(place.fractions)]
    side = max(width, height)
    x, y, indent = min(pixels[0::2]), min(pixels[1::2]), side * 0.008
    if len(pixels) == 4:
        far_x, far_y = max(pixels[0::2]), max(pixels[1::2])
        form = f'<rect class="{{}}" x="{x:.2f}" y="{y:.2f}" width="{far_x - x:.2f}" height="{far_y - y:.2f}"/>'
    else:
        form = f'<circle class="{{}}" cx="{x:.2f}" cy="{y:.2f}" r="{side / 50:.2f}"/>'
        indent = side * 0.025
    above = y - side * 0.012 if y > side * 0.06 else y + side * 0.055
    label = f'<text x="{x + indent:.2f}" y="{above:.2f}" font-size="{side * 0.05:.2f}">{place.number}</text>'
    kind = "place answer" if place.answer else "place"
    return f'<g class="{kind}" data-n="{place.number}">{form.format("halo")}{form.format("line")}{label}</g>'


def text_markup(spans: Sequence[Span], places: Sequence[Place]) -> str:
    """The text: trained spans marked, images collapsed, groups of coordinates with the numbers of their places."""
    several = sum(span.kind == "image" for span in spans) > 1
    parts, start, image = [], 0, 0
    for span in spans:
        end = start + len(span.text)
        if span.kind == "image":
            image += 1
            name = f"image {image}" if several else "image"
            parts.append(f"<span class=image>{name} · {span.tokens} tokens</span>")
        else:
            parts.append(_span_markup(span, _cut(span.text, start, places)))
        start = end
    return "".join(parts)


def _span_markup(span: Span, markup: str) -> str:
    if span.kind == "trained":
        return "<mark>" + markup.replace("\n", "<span class=nl>\n</span>") + "</mark>"
    return markup if span.kind == "prompt" else f"<span class={span.kind}>{markup}</span>"


def _cut(text: str, offset: int, places: Sequence[Place]) -> str:
    """The text of a span that begins at ``offset``, each group of coordinates in an element of its own."""
    groups: dict[tuple[int, int], list[str]] = {}
    for place in places:
        if offset <= place.start < offset + len(text):
            groups.setdefault((place.start - offset, place.end - offset), []).append(str(place.number))
    parts, position = [], 0
    for (start, end), numbers in sorted(groups.items()):
        parts.append(escaped(text[position:start]))
        parts.append(f'<span class=at data-n="{" ".join(numbers)}">{escaped(text[start:end])}</span>')
        position = end
    return "".join(parts) + escaped(text[position:])
