"""The frame of every HTML page that we write: one file that shows itself, loads nothing and sends nothing."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

STYLE = """
:root{--ink:#1c2330;--soft:#667085;--line:#e4e7ec;--truth:#007a5a;--pred:#d55e00;--card:#fff;--page:#f7f8fa}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;max-width:1160px;
padding:28px 24px}h1{font-size:24px;margin:0 0 2px}h2{font-size:18px;margin:32px 0 10px}
p,.soft{color:var(--soft);margin:0 0 10px}table{border-collapse:collapse;background:var(--card);width:100%}
th,td{padding:7px 12px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:220px}
th{color:var(--soft);font-weight:600}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px}
"""
# A browser that honours it refuses whatever a slip in the escaping would let in.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
# Characters that show nothing, or end lines where the text does not.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}


def html_page(title: str, body: str, *, style: str = "", script: str = "") -> bytes:
    """The whole file; ``body`` is markup, ``title`` text. A lone surrogate in a text is written as ``?``."""
    code = f"<script>{script}</script>" if script else ""
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<style>{STYLE}{style}</style></head><body>{body}{code}</body></html>\n"
    )
    return page.encode("utf-8", errors="replace")


def escaped(text: str) -> str:
    """Text as markup that shows exactly this text; control characters by their pictures (U+2400 …)."""
    return escape(text.translate(_CONTROLS))


def data_url(image: Image.Image, longest: int = 480) -> str:
    """The image inside a URL, at most ``longest`` pixels to a side; small ones are kept to the pixel."""
    shown = image.convert("RGB")
    shown.thumbnail((longest, longest))
    buffer, kind = io.BytesIO(), "png" if max(image.size) <= 128 else "jpeg"
    shown.save(buffer, kind.upper(), quality=88)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
