"""Linear layers held in few bits by bitsandbytes (QLoRA, arXiv 2305.14314; LLM.int8(), arXiv 2208.07339)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mllm.utils.imports import require

KINDS = ("nf4", "fp4", "int8")


def quantize(layers: Mapping[str, nn.Linear], kind: str, *, double: bool = False) -> None:
    """Turn ``layers`` into quantised ones, in place; their weights stand still from then on.

    ``kind`` is one of KINDS; ``double`` quantises the 4-bit scales too. Values are computed in the layers' own type.
    The layers change class instead of being replaced, so that names, hooks and references hold.
    """
    bitsandbytes = require("bitsandbytes", "quant")
    for layer in layers.values():
        weight = layer.weight.data
        replacement = _empty(bitsandbytes.nn, layer, kind, double)
        if kind == "int8":
            replacement.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        else:
            # bitsandbytes 0.50 repacks weights for AVX-512 in evaluation: other numbers than in training, and an error
            # where a layer is no multiple of the block.
            replacement.support_avx512bf16_for_cpu = False
            replacement.weight = bitsandbytes.nn.Params4bit(
                weight, requires_grad=False, quant_type=kind, compress_statistics=double, module=replacement
            )
        replacement.weight.full_count = weight.numel()
        replacement.bias = layer.bias
        layer.__class__, layer.__dict__ = type(replacement), replacement.__dict__
        layer.to(weight.device)


def _empty(library: object, layer: nn.Linear, kind: str, double: bool) -> nn.Module:
    shape = (layer.in_features, layer.out_features)
    with torch.device("meta"):
        if kind == "int8":
            return library.Linear8bitLt(*shape, bias=layer.bias is not None, has_fp16_weights=False)
        return library.Linear4bit(
            *shape,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            compress_statistics=double,
            quant_type=kind,
        )
