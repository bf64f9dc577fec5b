"""The resolved config as a Python file that loads back equal."""

from __future__ import annotations

import keyword
import math
import os
from collections.abc import Mapping
from typing import Any

from mllm.utils.files import atomic_write
from mllm.utils.redact import redact

_WIDTH = 110


def dump_config(cfg: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write ``cfg`` as Python assignments, whole or not at all; secrets become ``***``."""
    atomic_write(path, config_text(cfg))


def config_text(cfg: Any) -> str:
    """The text of `dump_config`. ``cfg`` is a mapping of sections or a mmengine Config."""
    values = redact(cfg.to_dict() if hasattr(cfg, "to_dict") else cfg)
    return "".join(f"{name} = {_written(value, 0, len(name) + 3)}\n" for name, value in values.items())


def _written(value: Any, depth: int, taken: int) -> str:
    """``value`` as source code, on one line if it fits behind ``taken`` characters."""
    if isinstance(value, Mapping):
        words = all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
        opening, closing = ("dict(", ")") if words else ("{", "}")
        named = [(f"{key}=" if words else f"{_scalar(key)}: ", one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)):
        opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
        named = [("", one) for one in value]
    else:
        return _scalar(value)
    line = ", ".join(prefix + _written(one, depth, 0) for prefix, one in named)
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    if "\n" not in line and 4 * depth + taken + len(line) + 7 <= _WIDTH:
        return f"{opening}{line}{comma}{closing}"
    indent = "    " * (depth + 1)
    body = "".join(f"{indent}{prefix}{_written(one, depth + 1, len(prefix))},\n" for prefix, one in named)
    return f"{opening}\n{body}{'    ' * depth}{closing}"


def _scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    # mmengine substitutes {{ fileDirname }} and its like in the text of a config before it is read as Python.
    return repr(value).replace("{{", "{\\x7b") if isinstance(value, str) else repr(value)
