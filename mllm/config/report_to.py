"""Names of trackers: what ``report_to`` takes, and which package each one needs."""

from __future__ import annotations

import importlib.util
from typing import Any

from mllm.errors import ConfigError, choices

# The modules of which one has to be there, and what pip installs.
TRACKERS = {
    "tensorboard": (("tensorboard", "tensorboardX"), "tensorboard"),
    "wandb": (("wandb",), "'mllm[wandb]'"),
    "trackio": (("trackio",), "'mllm[trackio]'"),
    "mlflow": (("mlflow",), "'mllm[mlflow]'"),
}


def default_trackers() -> list[str]:
    """TensorBoard where it is installed, else nothing."""
    return ["tensorboard"] if _is_installed("tensorboard") else []


def chosen_trackers(value: Any) -> list[str]:
    """The trackers that ``report_to`` names: one, several behind commas, a list, ``all`` that are installed, ``none``.

    ConfigError for a name that is none of them, or whose package is not installed.
    """
    listed = [value] if value is None or isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(one is None or isinstance(one, str) for one in listed):
        raise ConfigError(f"report_to={value!r}: expected names; {choices('', _KNOWN)}")
    words = [word.strip().lower() for one in listed for word in ("none" if one is None else one).split(",")]
    names = [word for word in dict.fromkeys(words) if word]
    if names in ([], ["none"]):
        return []
    if names == ["all"]:
        return [name for name in TRACKERS if _is_installed(name)]
    for name in names:
        _check(name)
    return names


_KNOWN = (*TRACKERS, "all", "none")


def _check(name: str) -> None:
    if name in ("all", "none"):
        raise ConfigError(f"report_to: {name!r} stands alone, not beside other names")
    if name not in TRACKERS:
        raise ConfigError(f"report_to: {name!r} is no tracker; {choices(name, _KNOWN)}")
    if not _is_installed(name):
        raise ConfigError(f"report_to: {name!r} is not installed: pip install {TRACKERS[name][1]}")


def _is_installed(name: str) -> bool:
    return any(importlib.util.find_spec(module) for module in TRACKERS[name][0])
