"""A LLaVA in pieces, as foreign checkpoints hold it, and the model that they make together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllm.errors import CheckpointError
from mllm.models.base import Family, weights_folder
from mllm.models.build import build_family
from mllm.models.checkpoints import read_folder
from mllm.models.foreign.internlm2 import llama_config, llama_tensors
from mllm.models.processor import Processor
from mllm.models.tuning import Tuned, Tuning

Tensors = dict[str, torch.Tensor]
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PROJECTOR_NAMES = {"0": "linear_1", "2": "linear_2"}


@dataclass
class Language:
    """A causal language model: its configuration, tensors (``model.…``, ``lm_head.weight``), tokenizer's folder."""

    config: dict[str, Any]
    tensors: Tensors
    tokenizer: Path


@dataclass
class Tower:
    """A CLIP-like tower: its configuration, tensors without ``vision_model.``, normalisation of pixels."""

    config: dict[str, Any]
    tensors: Tensors
    mean: list[float]
    std: list[float]


@dataclass
class LlavaParts:
    """All that makes a LLaVA; ``projector`` has the names of the file (``0.weight``, or ``weight`` of a linear one)."""

    language: Language
    tower: Tower
    projector: Tensors
    select_layer: int = -2
    select_feature: str = "patch"
    start_end: bool = False
    patch_token: bool = False
    conversation: dict[str, Any] = field(default_factory=dict)


def read_language(folder: Path, change: Callable[[Tensors], None] | None = None) -> Language:
    """A folder of a language model; ``change`` edits its tensors (merges adapters) before InternLM2 becomes Llama."""
    config = json.loads((weights_folder(str(folder), "--base") / "config.json").read_text())
    tensors = read_folder(folder)
    if change is not None:
        change(tensors)
    if config.get("model_type") == "internlm2":
        config, tensors = llama_config(config), llama_tensors(tensors, config)
    return Language(config, tensors, Path(folder))


def read_tower(
    folder: Path, change: Callable[[Tensors], None] | None = None, stored: Mapping[str, torch.Tensor] | None = None
) -> Tower:
    """A folder of CLIP or SigLIP, whole or the tower alone; ``stored`` are its tensors where a checkpoint has them."""
    folder = weights_folder(str(folder), "--tower")
    config = json.loads((folder / "config.json").read_text())
    tensors = tower_tensors(stored or read_folder(folder))
    if change is not None:
        change(tensors)
    pixels = folder / "preprocessor_config.json"
    written = json.loads(pixels.read_text()) if pixels.is_file() else {}
    from mllm.models.huggingface import CLIP_MEAN, CLIP_STD

    vision = dict(config.get("vision_config", config))
    vision.setdefault("model_type", "clip_vision_model")
    mean, std = written.get("image_mean", CLIP_MEAN), written.get("image_std", CLIP_STD)
    return Tower(vision, tensors, list(mean), list(std))


def tower_tensors(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The tower's tensors of a CLIP: the text side and what joins the two are left out."""
    inner = {name.partition("vision_model.")[2]: one for name, one in tensors.items() if "vision_model." in name}
    return {name: one for name, one in (inner or dict(tensors)).items() if not name.endswith("position_ids")}


def merge_lora(tensors: Tensors, adapters: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> list[str]:
    """Add ``B @ A * scale`` to each weight that has adapters, in place and in float32; gives the changed names.

    ``adapters`` are named as peft does, without ``base_model.model.`` and the adapter's own name; CheckpointError for a
    layer that the base lacks or whose shape differs, and for DoRA, which is merged by peft alone.
    """
    if settings.get("use_dora"):
        raise CheckpointError("DoRA adapters cannot be merged into foreign layouts; merge them with peft first")
    r, alpha = settings.get("r"), settings.get("lora_alpha")
    if not r or not alpha:
        raise CheckpointError("adapter_config.json does not tell r and lora_alpha; without them nothing can be merged")
    changed = []
    for name, low in adapters.items():
        if ".lora_A." not in name:
            continue
        target, high = name.replace(".lora_A.", "."), adapters.get(name.replace(".lora_A.", ".lora_B."))
        if high is None or target not in tensors:
            raise CheckpointError(f"adapter {name!r}: the base has no {target!r}; it is of another model")
        if (len(high), low.shape[1]) != tuple(tensors[target].shape):
            shape = tuple(tensors[target].shape)
            raise CheckpointError(f"adapter {name!r} changes {(len(high), low.shape[1])}, {target!r} is {shape}")
        scale = alpha / (math.sqrt(r) if settings.get("use_rslora") else r)
        weight = tensors[target]
        tensors[target] = (weight.float() + scale * (high.float() @ low.float())).to(weight.dtype)
        changed.append(target)
    return changed


def assemble(parts: LlavaParts, dtype: str = "float32") -> tuple[Family, Processor, nn.Module]:
    """Family, processor and model; CheckpointError unless every tensor of the model is given and no other."""
    linear = "weight" in parts.projector
    tied = bool(parts.language.config.get("tie_word_embeddings", False))
    if tied:  # a file keeps one of the two names
        parts.language.tensors.setdefault(EMBEDDINGS, parts.language.tensors.get(HEAD))
    config = {
        "text_config": _text(parts.language),
        "vision_config": parts.tower.config,
        "vision_feature_layer": parts.select_layer,
        "vision_feature_select_strategy": "default" if parts.select_feature == "patch" else "full",
        "tie_word_embeddings": tied,
    }
    model_args = {
        "type": "LLaVAv1" if linear else "LLaVA",
        "config": config,
        "tokenizer": str(parts.language.tokenizer),
    }
    model_args |= {"mm_use_im_start_end": parts.start_end, "mm_use_im_patch_token": parts.patch_token, "dtype": dtype}
    family = build_family({**model_args, "image_mean": parts.tower.mean, "image_std": parts.tower.std})
    size = parts.tower.config.get("image_size", 224)
    transforms = [{"type": "SquareCanvas"}, {"type": "Resize", "size": size}]
    processor = family.build_processor({"transforms": transforms, **parts.conversation})
    from transformers.initialization import no_init_weights

    from mllm.models.huggingface import fit_embeddings

    with no_init_weights():
        model = family.transformers_class()._from_config(family.model_config(), **family.options)
    _land(model, _named(parts, model), tied)
    fit_embeddings(model, processor)
    model.config.image_token_id = processor.image_token_id
    model.tuned = Tuned(Tuning())
    return family, processor, model.eval()


def _text(language: Language) -> dict[str, Any]:
    from transformers import AutoConfig

    kind = language.config["model_type"]
    own = AutoConfig.for_model(kind)
    known = {name: value for name, value in language.config.items() if hasattr(own, name) and value is not None}
    kept = {name: value for name, value in known.items() if not name.startswith(("_", "architectures", "auto_map"))}
    return {**kept, "model_type": kind, "vocab_size": len(language.tensors[EMBEDDINGS])}


def _named(parts: LlavaParts, model: nn.Module) -> Tensors:
    """All tensors under the names that the model has in memory."""
    nested = any(name.startswith("model.vision_tower.vision_model.") for name in model.state_dict())
    tower = "model.vision_tower.vision_model." if nested else "model.vision_tower."
    found = {f"{tower}{name}": one for name, one in parts.tower.tensors.items()}
    for name, one in parts.projector.items():
        number, _, rest = name.partition(".")
        own = f"{PROJECTOR_NAMES[number]}.{rest}" if number in PROJECTOR_NAMES else name
        found[f"model.multi_modal_projector.{own}"] = one
    for name, one in parts.language.tensors.items():
        if "rotary_emb" not in name:
            found[name if name.startswith("lm_head.") else f"model.language_model.{name.removeprefix('model.')}"] = one
    return found


def _land(model: nn.Module, tensors: Tensors, tied: bool) -> None:
    target = model.state_dict()
    missing = sorted(set(target) - set(tensors) - ({HEAD} if tied else set()))
    unknown = sorted(set(tensors) - set(target))
    wrong = sorted(name for name in set(tensors) & set(target) if tensors[name].shape != target[name].shape)
    for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong)):
        if names:
            raise CheckpointError(f"{len(names)} tensors are {kind}, first {names[0]!r}; base and tower must be theirs")
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
