"""Reading ``config.json`` of a folder that a config names: whose model it is, before transformers guesses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mllm.errors import CheckpointError


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """The content of ``config.json``; CheckpointError that names the config's key ``what`` if it is broken."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{what}: {path} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{what}: {path} holds no object; expected the configuration of a model")
    return content


def check_model_type(folder: Path, expected: str, family: str, what: str) -> None:
    """CheckpointError unless ``config.json`` is of the model type that a family's class reads."""
    config = read_config(folder, what)
    _check_layout(config, folder, what)
    found = config.get("model_type")
    if found != expected:
        raise CheckpointError(
            f"{what}: {str(folder)!r} holds a model of type {found!r}, {family} reads {expected!r}; choose another "
            "model_args.type, or another folder"
        )


def auto_config(folder: Path, what: str) -> Any:
    """transformers' configuration of a folder; code that lies in the folder is never run."""
    from transformers import AutoConfig

    _check_layout(read_config(folder, what), folder, what)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{what}: {str(folder)!r}: {str(error).strip().splitlines()[0]}") from error


def _check_layout(config: dict[str, Any], folder: Path, what: str) -> None:
    kind = "InternLM2" if config.get("model_type") == "internlm2" else None
    kind = "LLaVA's own layout" if "mm_vision_tower" in config else kind
    if kind:
        raise CheckpointError(
            f"{what}: {str(folder)!r} is of {kind}, which transformers does not read; convert it first: "
            f"mllm convert {folder} NEW_FOLDER --to hf"
        )
