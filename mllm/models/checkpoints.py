"""Reading and writing weights in one documented layout, strictly: every tensor is named and lands."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllm.errors import CheckpointError

Rules = Sequence[tuple[str, str]]
SINGLE, BIN = "model.safetensors", "pytorch_model.bin"


def rename(name: str, rules: Rules) -> str:
    """``name`` with the first matching prefix replaced; unchanged where none matches."""
    for old, new in rules:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def save_weights(model: nn.Module, state: Mapping[str, torch.Tensor] | None, folder: str | Path, rules: Rules) -> None:
    """Write config and safetensors (in shards of 5 GB) under the layout's names.

    ``state`` is the gathered state where FSDP or DeepSpeed hold the model in pieces. ``rules`` are pairs (prefix in
    memory, prefix in the file). What transformers' own ``save_pretrained`` writes for LLaVA depends on how the
    model was built (seen in 5.23), and its Trainer then resumes from a file of other names with a warning alone.
    """
    state = model.state_dict() if state is None else state
    copies = _copies(model)
    named = {rename(name, rules): tensor for name, tensor in state.items() if name not in copies}
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    write_tensors(named, folder)


def write_tensors(tensors: Mapping[str, torch.Tensor], folder: str | Path) -> None:
    """Safetensors in shards of 5 GB, with an index where there are several."""
    from huggingface_hub import save_torch_state_dict

    save_torch_state_dict(dict(tensors), folder, metadata={"format": "pt"})


def gathered(parameters: Iterable[nn.Parameter]) -> AbstractContextManager[Any]:
    """A context in which parameters that ZeRO-3 splits are whole; what the first process changes in it, all get."""
    split = [one for one in parameters if hasattr(one, "ds_id")]
    if not split:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(split, modifier_rank=0)


def load_weights(model: nn.Module, folder: str | Path, rules: Rules) -> None:
    """Read what ``save_weights`` wrote into a built model; CheckpointError unless every tensor lands."""
    stored = read_folder(folder)
    with gathered(model.parameters()):
        _land(model, stored, folder, rules)


def _land(model: nn.Module, stored: Mapping[str, torch.Tensor], folder: str | Path, rules: Rules) -> None:
    target = model.state_dict()
    file_names = {name: rename(name, rules) for name in target}
    tied = _tied(model)
    missing = sorted(name for name in target if file_names[name] not in stored and name not in tied)
    unknown = sorted(set(stored) - set(file_names.values()))
    found = {name: stored[file_name] for name, file_name in file_names.items() if file_name in stored}
    wrong = sorted(name for name, tensor in found.items() if tensor.shape != target[name].shape)
    if missing or unknown or wrong:
        kind, names = next(
            (kind, names)
            for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
            if names
        )
        raise CheckpointError(f"{folder}: {len(names)} tensors are {kind}, first {names[0]!r}; it is of another model")
    model.load_state_dict(found, strict=False)


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of one ``.safetensors`` or torch file (``.bin``, ``.pth``); nothing but tensors is unpickled."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{str(path)!r}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        fault = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a file of weights ({fault}); it may be cut off") from error


def stored_tensors(folder: Path, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Those of ``names`` that the files of ``folder`` hold; of safetensors nothing else is read."""
    from safetensors import safe_open

    found = {}
    for path in filter(Path.is_file, _files(folder)):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                present = set(file.keys())
                found |= {name: file.get_tensor(name) for name in names if name in present}
        else:
            stored = read_weights(path)
            found |= {name: stored[name] for name in names if name in stored}
    return found


def read_folder(folder: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder: safetensors or ``.bin``, in one file or in shards; CheckpointError if one is missing."""
    tensors: dict[str, torch.Tensor] = {}
    for path in _files(Path(folder)):
        if not path.is_file():
            raise CheckpointError(f"{folder}: {path.name} is missing; the checkpoint is incomplete")
        tensors.update(read_weights(path))
    return tensors


def _files(folder: Path) -> list[Path]:
    """The files of weights; the one that is expected where there is none."""
    for single in (SINGLE, BIN):
        index = folder / f"{single}.index.json"
        if index.is_file():
            return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        if (folder / single).is_file():
            return [folder / single]
    return [folder / SINGLE]


def _copies(model: nn.Module) -> set[str]:
    """Names of tied parameters but the first: a state that engines gathered holds each tensor once more."""
    seen: set[int] = set()
    return {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in seen or seen.add(id(parameter))
    }


def _tied(model: nn.Module) -> set[str]:
    """Names whose storage another parameter holds: a file keeps one of them."""
    first: dict[int, str] = {}
    tied = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            tied |= {name, first[id(parameter)]}
    return tied
