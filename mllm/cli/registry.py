"""List what is registered: data sets, models, evaluators, formatters, templates, transforms, and their files."""

from __future__ import annotations

import inspect
import json
import os

from mllm.cli.parsing import Parser


def main(argv: list[str]) -> int:
    """Print registry, name and file:line, or the same as JSON."""
    parser = Parser("registry", __doc__)
    parser.add_argument("--json", action="store_true", help="registry -> name -> file:line")
    arguments = parser.parse_args(argv)
    found = registered()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for registry, places in found.items():
        print(registry)
        width = max(map(len, places), default=0)
        for name, place in places.items():
            print(f"  {name:<{width}}  {place}")
    return 0


def registered() -> dict[str, dict[str, str]]:
    """Registry → name → file:line of the class."""
    from mllm.registry import REGISTRIES

    return {name: {key: place(registry.get(key)) for key in registry.names()} for name, registry in REGISTRIES.items()}


def place(cls: type) -> str:
    """``file:line`` of a class, the file relative to here if it lies below; its module where there is no source."""
    try:
        file, line = inspect.getsourcefile(cls) or "", inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__qualname__}"
    relative = os.path.relpath(file)
    return f"{file if relative.startswith('..') else relative}:{line}"
