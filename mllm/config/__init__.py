"""A config file, ``--cfg-options`` and flags become one resolved run configuration.

Names are imported when they are first used: ``Seq2SeqArguments`` loads torch, the others do not.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Resolved": "prepare",
    "Seq2SeqArguments": "arguments",
    "dump_config": "dump",
    "find_config": "find",
    "last_checkpoint": "checks",
    "list_configs": "find",
    "load_file": "load",
    "prepare_args": "prepare",
    "resolve": "prepare",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
