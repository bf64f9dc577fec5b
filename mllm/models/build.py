"""From ``model_args`` to a family, where ``pretrained`` may name a checkpoint of trained tensors alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.errors import CheckpointError, ConfigError
from mllm.models.adapters import is_partial
from mllm.models.base import Family, checkpoint_folder
from mllm.models.processor import read_saved
from mllm.registry import MODELS
from mllm.utils.storage import resolve_path

STARTS = ("vision_tower", "language_model", "projector", "weights", "config", "tokenizer")
FOLDERS = ("pretrained", "vision_tower", "language_model", "tokenizer", "projector", "weights")


def build_family(model_args: Mapping[str, Any]) -> Family:
    """The family; without ``type`` the one that the checkpoint in ``pretrained`` names.

    A partial checkpoint (LoRA, projector) is put on the base that it was trained on: ``model_args`` as saved there,
    with what is given here besides; ``base`` tells where the base has moved to.
    """
    pretrained = model_args.get("pretrained")
    if not isinstance(pretrained, str) or ("type" in model_args and "config" in model_args):
        return _recorded(model_args)
    folder = checkpoint_folder(pretrained, "model_args.pretrained")
    saved = read_saved(folder).get("family", {})
    if not is_partial(folder):
        whole = {name: value for name, value in model_args.items() if name not in STARTS}  # the run has it all
        return _recorded({"type": saved["type"], **whole} if saved else model_args)
    if not saved:
        raise CheckpointError(f"{folder}: mllm_processor.json does not tell its base; give it as model_args.pretrained")
    given = {name: value for name, value in model_args.items() if name not in ("pretrained", "base")}
    if given.get("type", saved["type"]) != saved["type"]:
        raise ConfigError(f"model_args.type={given['type']!r}, but {folder} is of the family {saved['type']!r}")
    saved = {**saved, **given}
    if model_args.get("base") is not None:
        saved["pretrained"] = model_args["base"]
    gone = [saved[name] for name in FOLDERS if saved.get(name) and not _is_there(saved[name])]
    if gone:
        raise CheckpointError(
            f"{folder} was trained on {gone[0]!r}, which is not there: name the place of its base by model_args.base"
        )
    family = _recorded(saved)
    family.partial = folder
    return family


def _recorded(model_args: Mapping[str, Any]) -> Family:
    places = {name: _place(model_args[name]) for name in FOLDERS if isinstance(model_args.get(name), str)}
    model_args = {**model_args, **places}
    family = MODELS.build(model_args)
    family.model_args = model_args
    return family


def _is_there(path: str) -> bool:
    return path.startswith("asset:") or Path(_place(path)).exists()


def _place(path: str) -> str:
    """An absolute path, so that the checkpoint is found from anywhere; assets keep their name."""
    return path if path.startswith("asset:") else os.path.abspath(resolve_path(path))
