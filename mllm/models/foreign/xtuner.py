"""LLaVA checkpoints of github InternLM/xtuner: ``iter_N.pth``, and the folder that ``pth_to_hf`` makes of it."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mllm.errors import CheckpointError
from mllm.models.checkpoints import read_folder
from mllm.models.foreign.parts import LlavaParts, Tensors, merge_lora, read_language, read_tower, tower_tensors

CONVERSATION = {"internlm2": {"template": "internlm2_chat"}, "phi3": {"template": "phi3"}}


def read_pth(path: Path, base: str | None, tower: str | None, alpha: float | None) -> tuple[LlavaParts, list[str]]:
    """The parts of ``iter_N.pth`` and the names of what it holds; what XTuner left frozen comes from base and tower.

    LoRA's alpha stands in the config text that the file carries; ``alpha`` gives it where it does not.
    """
    state, text = _load(path)
    pieces: dict[str, Tensors] = {"llm": {}, "projector": {}, "visual_encoder": {}}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part not in pieces:
            raise CheckpointError(f"{path}: {name!r} belongs to no LLaVA of XTuner (known parts: {', '.join(pieces)})")
        pieces[part][rest] = tensor
    projector = {name.removeprefix("model."): one for name, one in pieces["projector"].items()}
    trained: list[str] = []
    changes = {
        part: _change(pieces[part], {"lora_alpha": alpha or _alpha(text, part)}, path, trained)
        for part in ("llm", "visual_encoder")
    }
    return _parts(path, base, tower, projector, changes, trained)


def read_converted(folder: Path, base: str | None, tower: str | None) -> tuple[LlavaParts, list[str]]:
    """The parts of a folder with ``projector/`` and, where trained, ``llm_adapter/``, ``visual_encoder/`` and so on."""
    projector = {name.removeprefix("model."): one for name, one in read_folder(folder / "projector").items()}
    trained: list[str] = []
    changes = {}
    for part, name in (("llm", "llm_adapter"), ("visual_encoder", "visual_encoder_adapter")):
        changes[part] = lambda tensors: None
        if (folder / name).is_dir():
            settings = json.loads((folder / name / "adapter_config.json").read_text())
            files = [folder / name / f"adapter_model.{kind}" for kind in ("safetensors", "bin")]
            from mllm.models.checkpoints import read_weights

            stored = read_weights(next((file for file in files if file.is_file()), files[0]))
            changes[part] = _change(stored, settings, folder / name, trained)
    if base is None and (folder / "config.json").is_file():
        base = str(folder)  # the language model was trained whole and lies beside the projector
    if tower is None and (folder / "visual_encoder").is_dir():
        tower = str(folder / "visual_encoder")
    return _parts(folder, base, tower, projector, changes, trained)


def _parts(
    source: Path,
    base: str | None,
    tower: str | None,
    projector: Tensors,
    changes: Mapping[str, Any],
    trained: list[str],
) -> tuple[LlavaParts, list[str]]:
    for value, flag, what in ((base, "--base", "the language model"), (tower, "--tower", "the CLIP")):
        if value is None:
            raise CheckpointError(f"{source} holds no frozen parts: give {what} that it was trained on by {flag}")
    if not projector:
        raise CheckpointError(f"{source} has no projector; it is no LLaVA of XTuner")
    kind = json.loads((Path(base) / "config.json").read_text()).get("model_type", "")
    language = read_language(Path(base), changes["llm"])
    found = read_tower(Path(tower), changes["visual_encoder"])
    trained += [f"projector.{name}" for name in projector]
    conversation = CONVERSATION.get(kind, {"template": "vicuna_v1.1"})
    return LlavaParts(language, found, projector, conversation=conversation), trained


def _change(stored: Tensors, settings: dict[str, Any], source: Path, trained: list[str]) -> Any:
    """What is done to the base's tensors: adapters are merged in, whole tensors replace theirs."""

    def change(tensors: Tensors) -> None:
        plain = {_inner(name): one for name, one in stored.items()}
        if not any(name in tensors for name in plain) and any("vision_model." in name for name in plain):
            plain = tower_tensors(plain)
        adapters = {name: one for name, one in plain.items() if ".lora_" in name}
        whole = {name: one for name, one in plain.items() if name not in adapters}
        unknown = sorted(set(whole) - set(tensors))
        if unknown:
            raise CheckpointError(f"{source}: the base has no {unknown[0]!r}; it was trained on another one")
        if adapters:
            rank = next(len(one) for name, one in adapters.items() if ".lora_A." in name)
            if settings.get("lora_alpha") is None:
                raise CheckpointError(f"{source} does not tell LoRA's alpha: give it by --lora-alpha")
            merged = merge_lora(tensors, adapters, {"r": rank, **settings})
            trained.extend(merged)
        for name, one in whole.items():
            if tensors[name].shape != one.shape:
                raise CheckpointError(
                    f"{source}: {name!r} is {tuple(one.shape)}, the base's {tuple(tensors[name].shape)}"
                )
            tensors[name] = one
            trained.append(name)

    return change


def _inner(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".default.", ".").replace(".base_layer.", ".")


def _alpha(text: str, part: str) -> float | None:
    """``lora_alpha`` of a part in XTuner's config text, where ``llm_lora`` and ``visual_encoder_lora`` stand."""
    block = re.search(rf"\b{part}_lora\s*=\s*dict\((.*?)\)", text, re.DOTALL)
    found = re.search(r"lora_alpha\s*=\s*([\d.]+)", block.group(1) if block else "")
    return float(found.group(1)) if found else None


def _load(path: Path) -> tuple[Tensors, str]:
    """``state_dict`` and config text of a ``.pth``; only the types that mmengine's message hub needs are unpickled."""
    from mmengine.logging.history_buffer import HistoryBuffer
    from numpy._core import multiarray

    allowed = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Int64DType,
        multiarray._reconstruct,
        (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        getattr,
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            stored = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        fault = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: not a checkpoint of XTuner, or one that holds foreign code ({fault})"
        ) from error
    if not isinstance(stored, dict) or "state_dict" not in stored:
        raise CheckpointError(f"{path}: no 'state_dict'; expected XTuner's iter_N.pth")
    config = (stored.get("meta") or {}).get("cfg", "")
    return stored["state_dict"], config if isinstance(config, str) else ""
