"""Show a config as a run would see it, each value with the place that set it."""

from __future__ import annotations

import json
from typing import Any

from mllm.cli.parsing import Parser


def main(argv: list[str]) -> int:
    """Print ``key = value  # origin``, or the same as JSON; the rest of the line is as for ``finetune.py``."""
    parser = Parser("show-cfg", __doc__ + "\n\nTakes CONFIG, --cfg-options and flags as finetune.py does, and:")
    parser.add_argument("--json", action="store_true", help="a list of objects with key, value, origin")
    parser.add_argument("--all", action="store_true", help="training arguments that nothing sets, too")
    arguments, rest = parser.parse_known_args(argv)
    rows = resolved_rows(rest, defaults=arguments.all)
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        shown = [(f"{row['key']} = {row['value']!r}", row["origin"]) for row in rows]
        width = min(max((len(text) for text, _ in shown), default=0), 70)
        for text, origin in shown:
            print(f"{text:<{width}}  # {origin}")
    return 0


def resolved_rows(argv: list[str], *, defaults: bool = False) -> list[dict[str, Any]]:
    """Key, value (secrets hidden) and origin of every plain value, in the order of the config."""
    from mllm.config.prepare import leaves, resolve
    from mllm.utils.redact import redact

    resolved = resolve(argv)
    rows = [
        {"key": ".".join(map(str, key)), "value": value, "origin": resolved.origins[key]}
        for key, value in leaves(redact(resolved.values))
        if key in resolved.origins
    ]
    return rows + (_default_rows(resolved.values.get("training_args", {})) if defaults else [])


def _default_rows(given: dict[str, Any]) -> list[dict[str, Any]]:
    import dataclasses

    from mllm.config.prepare import argument_fields

    rows = []
    for name, one in sorted(argument_fields().items()):
        if name not in given:
            made = one.default_factory is not dataclasses.MISSING
            value = one.default_factory() if made else one.default
            rows.append({"key": f"training_args.{name}", "value": getattr(value, "value", value), "origin": "default"})
    return rows
