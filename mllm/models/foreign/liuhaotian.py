"""Checkpoints of github haotian-liu/LLaVA: whole ones, LoRA folders, ``mm_projector.bin``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllm.errors import CheckpointError
from mllm.models import adapters
from mllm.models.checkpoints import read_folder, read_weights, write_tensors
from mllm.models.foreign.parts import Language, LlavaParts, merge_lora, read_tower
from mllm.models.processor import Processor

MODEL_TYPES = ("llava_llama", "llava")
PROJECTOR, TOWER = "model.mm_projector.", "model.vision_tower.vision_tower."
PROJECTORS = ("linear", "mlp2x_gelu")


def is_liuhaotian(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is LLaVA's own: later releases say llava_llama, earlier ones llava."""
    return config.get("model_type") in MODEL_TYPES and "mm_vision_tower" in config


def read_liuhaotian(folder: Path, base: str | None, tower: str | None) -> tuple[LlavaParts, list[str]]:
    """The parts of a whole checkpoint, a LoRA folder or one of ``mm_projector.bin``; and what was trained in them.

    ``base`` is the language model (or LLaVA) below a LoRA or a projector, ``tower`` the CLIP where the checkpoint holds
    none; without them the paths that the checkpoint itself names are tried.
    """
    config = json.loads((folder / "config.json").read_text())
    if config.get("mm_projector_type", "linear") not in PROJECTORS:
        raise CheckpointError(f"{folder}: mm_projector_type={config['mm_projector_type']!r}; known: {PROJECTORS}")
    trained: list[str] = []
    if (folder / "adapter_config.json").is_file():
        tensors, source = _with_lora(folder, base, trained)
    elif (folder / "mm_projector.bin").is_file():
        source = _base_folder(base, config.get("_name_or_path"), folder)
        tensors = {**read_folder(source), **_projector_file(folder / "mm_projector.bin")}
        trained += [name for name in tensors if name.startswith(PROJECTOR)]
    else:
        tensors, source = read_folder(folder), folder
    return _parts(folder, config, tensors, source, tower), trained


def _with_lora(folder: Path, base: str | None, trained: list[str]) -> tuple[dict[str, torch.Tensor], Path]:
    settings = json.loads((folder / "adapter_config.json").read_text())
    source = _base_folder(base, settings.get("base_model_name_or_path"), folder)
    tensors = read_folder(source)
    others = {_inner(name): one for name, one in read_weights(folder / adapters.OTHERS_FILE).items()}
    tensors.update(others)
    files = [folder / name for name in (adapters.ADAPTER_FILE, "adapter_model.bin") if (folder / name).is_file()]
    stored = {
        _inner(name): one for name, one in read_weights(next(iter(files), folder / adapters.ADAPTER_FILE)).items()
    }
    trained += [*others, *merge_lora(tensors, stored, settings)]
    return tensors, source


def _inner(name: str) -> str:
    """A name without peft's prefix and the adapter's own name."""
    return name.removeprefix("base_model.model.").replace(".default.", ".")


def _projector_file(path: Path) -> dict[str, torch.Tensor]:
    return {PROJECTOR + name.rpartition("mm_projector.")[2]: one for name, one in read_weights(path).items()}


def _base_folder(given: str | None, named: str | None, folder: Path) -> Path:
    for path in [given] if given else [named]:
        if path and Path(path).is_dir():
            return Path(path)
    raise CheckpointError(
        f"{folder} holds no language model: give the one it was trained on by --base (it names {named!r})"
    )


def _parts(
    folder: Path, config: Mapping[str, Any], tensors: dict[str, torch.Tensor], source: Path, tower: str | None
) -> LlavaParts:
    vision = {name: one for name, one in tensors.items() if name.startswith("model.vision_tower.")}
    projector = {name.removeprefix(PROJECTOR): one for name, one in tensors.items() if name.startswith(PROJECTOR)}
    if not projector:
        raise CheckpointError(f"{folder}: no {PROJECTOR}…; it is a language model without a projector")
    rest = {name: one for name, one in tensors.items() if name not in vision and not name.startswith(PROJECTOR)}
    named = tower or next((p for p in _places(config["mm_vision_tower"], folder) if Path(p).is_dir()), None)
    if named is None:
        raise CheckpointError(
            f"{folder} names the tower {config['mm_vision_tower']!r}, which is no folder here: give it by --tower"
        )
    found = read_tower(Path(named), stored=vision)
    has_tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    language = dict(config)
    if source != folder:
        language = {**json.loads((source / "config.json").read_text()), "vocab_size": None}
    language["model_type"] = "llama"
    return LlavaParts(
        Language(language, rest, folder if has_tokenizer else source),
        found,
        projector,
        select_layer=config.get("mm_vision_select_layer", -2),
        select_feature=config.get("mm_vision_select_feature", "patch"),
        start_end=bool(config.get("mm_use_im_start_end", False)),
        patch_token="linear" in config.get("mm_projector_type", "linear") and _has_token(folder, source, "<im_patch>"),
    )


def _places(path: str, folder: Path) -> tuple[str, ...]:
    return path, str(folder / path)


def _has_token(folder: Path, source: Path, token: str) -> bool:
    """Whether the tokenizer's files know a token."""
    names = ("added_tokens.json", "tokenizer.json", "tokenizer_config.json")
    files = [one / name for one in (folder, source) for name in names]
    return any(file.is_file() and token in file.read_text(encoding="utf-8") for file in files)


def config_of(model: nn.Module, processor: Processor, tower_path: str) -> dict[str, Any]:
    """LLaVA's ``config.json`` of a model; CheckpointError unless its language model is a Llama."""
    text = model.config.text_config
    if text.model_type != "llama":
        raise CheckpointError(f"LLaVA's own layout holds Llama-like language models, this one is {text.model_type!r}")
    linear = isinstance(model.model.multi_modal_projector, nn.Linear)
    return {
        **{name: value for name, value in text.to_dict().items() if not name.startswith("_")},
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_vision_tower": tower_path,
        "mm_hidden_size": model.config.vision_config.hidden_size,
        "mm_projector_type": "linear" if linear else "mlp2x_gelu",
        "mm_vision_select_layer": model.config.vision_feature_layer,
        "mm_vision_select_feature": "patch"
        if model.config.vision_feature_select_strategy == "default"
        else "cls_patch",
        "mm_use_im_start_end": bool(processor.image.get("start")),
        "mm_use_im_patch_token": processor.image.get("token") == "<im_patch>",
        "image_aspect_ratio": "pad",
        "use_mm_proj": True,
    }


def own_name(name: str) -> str:
    """LLaVA's name of a tensor that has ``name`` in memory."""
    rules = (
        ("model.multi_modal_projector.linear_1.", f"{PROJECTOR}0."),
        ("model.multi_modal_projector.linear_2.", f"{PROJECTOR}2."),
        ("model.multi_modal_projector.", PROJECTOR),
        ("model.vision_tower.vision_model.", f"{TOWER}vision_model."),
        ("model.vision_tower.", f"{TOWER}vision_model."),
        ("model.language_model.", "model."),
    )
    return next((new + name.removeprefix(old) for old, new in rules if name.startswith(old)), name)


def write_whole(model: nn.Module, processor: Processor, folder: Path, tower_path: str) -> None:
    """A whole checkpoint, the tower's weights included, as self-trained ones have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(model, processor, tower_path), indent=2) + "\n")
    write_tensors({own_name(name): one for name, one in model.state_dict().items()}, folder)
    processor.save_pretrained(folder)


def write_lora(model: nn.Module, processor: Processor, folder: Path, base: str, tower_path: str) -> None:
    """A LoRA folder as LLaVA's training writes it, from a model that carries adapters."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(model, processor, tower_path), indent=2) + "\n")
    stored, others = adapters.trained_tensors(model)
    renamed = {adapters.PREFIX + own_name(name): one for name, one in stored.items()}
    save_file(renamed, folder / adapters.ADAPTER_FILE, metadata={"format": "pt"})
    torch.save({adapters.PREFIX + own_name(name): one for name, one in others.items()}, folder / adapters.OTHERS_FILE)
    settings = model.peft_config["default"]
    settings.base_model_name_or_path, before = base, settings.target_modules
    settings.target_modules = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in stored if ".lora_" in name}
    settings.save_pretrained(folder)
    settings.target_modules = before
    processor.save_pretrained(folder)


def write_projector(model: nn.Module, path: Path) -> list[str]:
    """``mm_projector.bin``; gives the names in it."""
    part = {name: one for name, one in model.state_dict().items() if "multi_modal_projector" in name}
    tensors = {own_name(name): one.detach().cpu().clone() for name, one in part.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return sorted(tensors)
