"""What predictions were made of, a digest a part: two runs whose digests agree give the same text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mllm.engine.run_folder import versions

# Where a model was read from, with what, and how it stood in training: none of it changes what it answers.
_ORIGIN = {"_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache"}
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1 << 20


def made_of(generator: Any, data: Mapping[str, Any]) -> dict[str, str]:
    """Digests of data, prompts, generation options, model, weights and library versions; the same on every rank.

    ``data`` is the data set's config and its fingerprint (annotation files, rows); the pictures' pixels are not read.
    How many processes there are and how large a batch is do not count: neither changes the text (in fp32).
    """
    processor, model = generator.processor, generator.model
    prompts = [processor.conversation, processor.formatter.to_config(), processor.template.to_config()]
    prompts += [processor.image, _tokenizer(processor.tokenizer)]
    options = {**generator.options, **({"seed": generator.seed} if generator.options.get("do_sample") else {})}
    config = getattr(model, "config", None)
    plain = _without_origin(config.to_dict()) if hasattr(config, "to_dict") else None
    return {
        "data": _digest(data),
        "prompts": _digest(prompts),
        "generation options": _digest([options, generator.accelerator.mixed_precision]),
        "model": _digest([type(generator.family).__name__, type(model).__name__.removeprefix("FSDP"), plain]),
        "weights": weights_digest(model),
        "library versions": _digest(versions()),
    }


def differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The parts that are not the same in both."""
    return [name for name in {**first, **second} if first.get(name) != second.get(name)]


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over name, shape, type and checksum of every tensor of the state, so that one changed value changes it.

    Every value is looked at, where it lies (7 billion take a moment on a GPU), instead of hashing all bytes on the CPU.
    Weights that FSDP 2 or ZeRO-3 hold in pieces are gathered one tensor at a time, as a forward pass does, so the
    digest depends on no number of processes; all ranks have to call it.
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor):
            with _whole(value) as tensor:
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {checksum(tensor)}\n".encode())
    return digest.hexdigest()


def checksum(tensor: torch.Tensor) -> int:
    """Σ (2i + 1) · bits(i) modulo 2⁶⁴ over the values' bit patterns as whole numbers.

    An odd factor has an inverse modulo 2⁶⁴, so no single change is missed; the place counts, so no exchange is either.
    """
    flat = tensor.detach().reshape(-1)
    flat = flat.view(_BITS[flat.element_size()]) if flat.element_size() in _BITS else flat.view(torch.int64)
    total = 0
    for start in range(0, len(flat), _CHUNK):
        bits = flat[start : start + _CHUNK].to(torch.int64)
        odd = torch.arange(start, start + len(bits), device=bits.device) * 2 + 1
        total += int((bits * odd).sum())
    return total % 2**64


@contextmanager
def _whole(value: torch.Tensor) -> Iterator[torch.Tensor]:
    if hasattr(value, "full_tensor"):  # FSDP 2
        yield value.full_tensor()
    elif hasattr(value, "ds_id"):  # ZeRO-3
        import deepspeed

        with deepspeed.zero.GatheredParameters([value]):
            yield value
    else:
        yield value


def _tokenizer(tokenizer: Any) -> list[Any]:
    return [sorted(tokenizer.get_vocab().items()), getattr(tokenizer, "chat_template", None)]


def _without_origin(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_origin(one) for key, one in value.items() if key not in _ORIGIN}
    return [_without_origin(one) for one in value] if isinstance(value, (list, tuple)) else value


def _digest(value: Any) -> str:
    # Twice: keys are text after the first time, so they can be sorted.
    text = json.dumps(json.loads(json.dumps(value, default=str)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
