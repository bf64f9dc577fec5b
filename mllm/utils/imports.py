"""Optional libraries: imported where they are used, and named together with the extra that installs them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mllm.errors import ConfigError


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``; ConfigError that names the extra to install where it, or a part of it, is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == top
        problem = "is not installed" if missing else f"could not be imported ({error})"
        raise ConfigError(f"{top!r} {problem}: pip install 'mllm[{extra}]'") from error
