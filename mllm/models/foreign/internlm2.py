"""InternLM2's weights as Llama's: transformers has no class of its own for it (github InternLM/InternLM, tools)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

NAMES = (
    ("attention.wo.", "self_attn.o_proj."),
    ("feed_forward.w1.", "mlp.gate_proj."),
    ("feed_forward.w3.", "mlp.up_proj."),
    ("feed_forward.w2.", "mlp.down_proj."),
    ("attention_norm.", "input_layernorm."),
    ("ffn_norm.", "post_attention_layernorm."),
    ("model.tok_embeddings.", "model.embed_tokens."),
    ("output.", "lm_head."),
)
KEPT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "bos_token_id"),
    *("eos_token_id", "pad_token_id", "tie_word_embeddings", "initializer_range"),
)


def llama_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the Llama that computes the same."""
    kept = {name: config[name] for name in KEPT if config.get(name) is not None}
    return {"model_type": "llama", **kept, "attention_bias": bool(config.get("bias", False))}


def llama_tensors(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors under Llama's names; ``wqkv`` holds for each key head its queries, the key and the value."""
    found = {}
    for name, tensor in tensors.items():
        if ".attention.wqkv." in name:
            for own, part in zip("qkv", split_wqkv(tensor, config), strict=True):
                found[name.replace("attention.wqkv.", f"self_attn.{own}_proj.")] = part
            continue
        for old, new in NAMES:
            if old in name and (old != "output." or name.startswith("output.")):
                name = name.replace(old, new)
                break
        found[name] = tensor
    return found


def split_wqkv(tensor: torch.Tensor, config: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of ``wqkv``, or of the B of an adapter on it, as those of query, key and value."""
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width, each = config["hidden_size"] // heads, heads // key_heads
    groups = tensor.unflatten(0, (key_heads, each + 2, width))
    parts = groups[:, :each].flatten(0, 2), groups[:, each].flatten(0, 1), groups[:, each + 1].flatten(0, 1)
    return tuple(part.clone() for part in parts)  # no views of one another: files take none
