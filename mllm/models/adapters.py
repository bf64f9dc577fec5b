"""Checkpoints of trained tensors alone: LoRA adapters as peft writes them, other trained tensors as LLaVA does.

``adapter_config.json`` and ``adapter_model.safetensors`` hold the adapters, ``non_lora_trainables.bin`` the rest,
``mllm_tune.json`` the config part ``tune`` and a digest of the base that they were trained on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllm.errors import CheckpointError
from mllm.models.checkpoints import gathered, read_weights

TUNE_FILE, ADAPTER_FILE, OTHERS_FILE = "mllm_tune.json", "adapter_model.safetensors", "non_lora_trainables.bin"
PREFIX = "base_model.model."
ADAPTER_WORDS = (".lora_", ".trainable_tokens_delta")
DIGEST_SAMPLES = 256


def is_adapter(parameter_name: str) -> bool:
    """Whether a parameter was added by peft."""
    return any(word in parameter_name for word in ADAPTER_WORDS)


def has_adapters(model: nn.Module) -> bool:
    """Whether peft put adapters into the model."""
    return bool(getattr(model, "peft_config", None))


def is_partial(folder: str | Path) -> bool:
    """Whether the folder holds trained tensors alone, as ``save_trained`` writes them."""
    return (Path(folder) / TUNE_FILE).is_file()


def holds_lora(folder: str | Path) -> bool:
    """Whether the folder holds low-rank adapters; rows of tokens alone are none."""
    path = Path(folder) / ADAPTER_FILE
    return path.is_file() and any(".lora_" in name for name in read_weights(path))


def read_partial(folder: Path) -> dict[str, Any]:
    """``tune`` and ``base_digest`` of a partial checkpoint; CheckpointError if the file is broken."""
    path = folder / TUNE_FILE
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); the checkpoint is incomplete") from error


def digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and sampled values of the tensors that stand still.

    Values are compared as bfloat16: a base is the same whether it was loaded in float32 or bfloat16.
    """
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            continue
        if parameter.is_meta:
            found.update(f"{name}{tuple(parameter.shape)}".encode())
            continue
        with gathered([parameter]):
            values = parameter.detach().flatten()
            sample = values[:: max(values.numel() // DIGEST_SAMPLES, 1)][:DIGEST_SAMPLES].to("cpu", torch.bfloat16)
            found.update(f"{name}{tuple(parameter.shape)}".encode() + sample.view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def save_trained(model: nn.Module, state: Mapping[str, torch.Tensor] | None, folder: str | Path) -> None:
    """Write the trained tensors of a tuned model; ``state`` is the gathered state of one that is held in pieces."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found, others = trained_tensors(model, state)
    if has_adapters(model):
        save_file({PREFIX + name: one for name, one in found.items()}, folder / ADAPTER_FILE, metadata={"format": "pt"})
        config = model.peft_config["default"]
        config.base_model_name_or_path = getattr(model.config, "_name_or_path", "") or None
        config.save_pretrained(folder)
    torch.save({PREFIX + name: one for name, one in others.items()}, folder / OTHERS_FILE)
    written = {"tune": model.tuned.to_config(), "base_digest": model.tuned.base_digest}
    (folder / TUNE_FILE).write_text(json.dumps(written, indent=2) + "\n")


def trained_tensors(
    model: nn.Module, state: Mapping[str, torch.Tensor] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Adapters as peft names them, and the other trained tensors by their names in memory."""
    state = model.state_dict() if state is None else state
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    found = _adapters(model, state) if has_adapters(model) else {}
    return (
        # Copies: tied tables share the rows of their new tokens, and files take no shared memory.
        {name: one.detach().cpu().clone().contiguous() for name, one in found.items()},
        {name: state[name].detach().cpu() for name in sorted(trained) if not is_adapter(name)},
    )


def load_trained(model: nn.Module, folder: str | Path) -> None:
    """Read what ``save_trained`` wrote into a model that was tuned alike; CheckpointError unless every tensor lands."""
    stored = {name.removeprefix(PREFIX): one for name, one in _read(Path(folder)).items()}
    trained_on, here = read_partial(Path(folder)).get("base_digest"), model.tuned.base_digest
    if trained_on not in (None, here):
        raise CheckpointError(
            f"{folder} was trained on another base model, or with other trained parts, than this one (digest "
            f"{trained_on[:12]}… against {str(here)[:12]}…): give model_args the base, and tune the parts, of that run"
        )
    with gathered(model.parameters()):
        _land(model, stored, folder)


def _land(model: nn.Module, stored: Mapping[str, torch.Tensor], folder: str | Path) -> None:
    target = model.state_dict()
    files = _file_names(model)
    wanted = {files.get(name, name): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    wanted |= {file_name: name for name, file_name in files.items()}
    missing = sorted(set(wanted) - set(stored))
    unknown = sorted(name for name in stored if name not in wanted and name not in target)
    wrong = sorted(name for name, one in stored.items() if name in wanted and one.shape != target[wanted[name]].shape)
    for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong)):
        if names:
            raise CheckpointError(
                f"{folder}: {len(names)} trained tensors are {kind}, first {names[0]!r}; it was tuned otherwise"
            )
    model.load_state_dict({wanted.get(name, name): one for name, one in stored.items()}, strict=False)


def load_some(model: nn.Module, folder: str | Path) -> list[str]:
    """Put trained tensors that are no adapters into a model, and give those that are trained whole.

    CheckpointError unless each has its place there.
    """
    stored = {name.removeprefix(PREFIX): one for name, one in _read(Path(folder)).items()}
    with gathered(model.parameters()):
        target = model.state_dict()
        whole = [name for name in stored if not is_adapter(name)]
        _put_rows(stored, target, Path(folder))
        wrong = sorted(name for name, one in stored.items() if name not in target or one.shape != target[name].shape)
        if wrong or not stored:
            raise CheckpointError(
                f"{folder}: {len(wrong)} of its {len(stored)} trained tensors have no place in this model, first "
                f"{next(iter(wrong), None)!r}"
            )
        model.load_state_dict(stored, strict=False)
    return whole


def _put_rows(stored: dict[str, torch.Tensor], target: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Turn the stored rows of tokens into whole tables, the other rows as the model has them."""
    deltas = [name for name in stored if name.endswith("trainable_tokens_delta")]
    if not deltas:
        return
    indices = json.loads((folder / "adapter_config.json").read_text())["token_indices"]
    for name in deltas:
        table = re.sub(r"(\.token_adapter)?\.trainable_tokens_delta$", ".weight", name)
        rows = stored.pop(name)
        if table in target and len(target[table]) > max(indices):
            stored[table] = target[table].clone()
            stored[table][indices] = rows.to(target[table].dtype)
        else:
            stored[table] = rows  # of no place here: the caller names it


def _adapters(model: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, dict(state), save_embedding_layers=False)


def _file_names(model: nn.Module) -> dict[str, str]:
    """Name of each adapter tensor in memory → its name in a file, as peft has them."""
    if not has_adapters(model):
        return {}
    tags = {name: torch.empty(0) for name in model.state_dict()}
    by_identity = {id(tag): name for name, tag in tags.items()}
    return {by_identity[id(tag)]: name for name, tag in _adapters(model, tags).items()}


def _read(folder: Path) -> dict[str, torch.Tensor]:
    adapters = read_weights(folder / ADAPTER_FILE) if (folder / ADAPTER_FILE).is_file() else {}
    return {**adapters, **read_weights(folder / OTHERS_FILE)}


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The base model alone, for as long as the body runs; other trained tensors stay as they are."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merge_adapters(model: nn.Module) -> None:
    """Add the adapters to the weights that they stand on and take them off, in place.

    CheckpointError where the base is quantised: its weights cannot hold the sum; build it without ``tune.quantize``.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):
            _put(model, name, module.unload_and_optionally_merge_module(True, True, None))
        elif isinstance(module, BaseTunerLayer) and not name.endswith("token_adapter"):
            base = module.get_base_layer()
            if type(base).__module__.startswith("bitsandbytes"):
                raise CheckpointError(
                    f"{name} is quantised: adapters merge only into whole weights; drop tune.quantize"
                )
            module.merge(safe_merge=True)
            _put(model, name, base)
    del model.peft_config
    model.tuned = replace(model.tuned, tuning=replace(model.tuned.tuning, lora=None), saves_trained=False)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
