"""Weight files of OpenFlamingo and Otter, read into our module.

OpenFlamingo saves the trained parts and the embeddings, perhaps below ``model_state_dict`` and with ``module.``; its
cross-attention stands inside the decoder's layers or in a list of its own. Otter saves everything, with Hugging Face's
CLIP. Key layouts: github mlfoundations/open_flamingo (v2.0.1), Luodian/Otter (June 2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from mllm.errors import CheckpointError
from mllm.models.checkpoints import read_folder, read_weights

PERCEIVER, GATED = "perceiver.", "gated_cross_attn_layers."
RULES = (
    (r"^(module|_orig_mod)\.", ""),
    # Otter's perceiver: attention and feed-forward side by side instead of in a list.
    (r"^perceiver\.layers\.(\d+)\.feed_forward\.", r"perceiver.layers.\1.1."),
    (r"^perceiver\.layers\.(\d+)\.(norm_media|norm_latents|to_q|to_kv|to_out)\.", r"perceiver.layers.\1.0.\2."),
    (r"^lang_encoder\.gated_cross_attn_layers\.(\d+)\.", r"gated_cross_attn_layers.\1."),
    (r"^lang_encoder\..*?\.(\d+)\.gated_cross_attn_layer\.", r"gated_cross_attn_layers.\1."),
    (r"^(gated_cross_attn_layers\.\d+)\.feed_forward\.", r"\1.ff."),
    (r"^(lang_encoder\..*?\.\d+)\.decoder_layer\.", r"\1."),
    (r"^lang_encoder\.", "language_model."),
    (r"^vision_encoder\.vision_model\.", "vision_encoder."),
)


def load_trained_parts(model: nn.Module, path: str | Path) -> None:
    """Read a file (``.pt``, ``.bin``, ``.safetensors``) or a folder of Otter's into the model.

    CheckpointError unless perceiver and cross-attention are all there and every tensor has its place. Tables of
    embeddings may have more rows than the tokenizer has tokens; the rest of the rows is padding.
    """
    path = Path(path)
    stored = renamed(read_folder(path) if path.is_dir() else read_weights(path))
    target = model.state_dict()
    tables = {name for name in stored if name in target and _is_table(model, name)}
    needed = max(model.new_token_rows) + 1
    for name in tables:
        stored[name] = _rows(stored[name], target[name], needed, f"{path}: {name}")
    missing = sorted(name for name in target if name.startswith((PERCEIVER, GATED)) and name not in stored)
    unknown = sorted(set(stored) - set(target))
    wrong = sorted(name for name, one in stored.items() if name in target and one.shape != target[name].shape)
    for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong)):
        if names:
            raise CheckpointError(
                f"{path}: {len(names)} tensors are {kind}, first {names[0]!r}; check cross_attn_every_n_layers and the "
                "language model"
            )
    model.load_state_dict(stored, strict=False)


def renamed(stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under our names; a tower in open_clip's layout, and what is stored twice, is left out."""
    inner = stored.get("model_state_dict", stored)
    found = {}
    for name, tensor in inner.items():
        for pattern, replacement in RULES:
            name = re.sub(pattern, replacement, name)
        open_clip = name.startswith("vision_encoder.") and not re.match(
            r"vision_encoder\.(embeddings|encoder|pre_layrnorm|post_layernorm)\.", name
        )
        if not open_clip and not name.startswith("language_model.old_decoder_blocks.") and "rotary_emb" not in name:
            found[name] = tensor
    return found


def _is_table(model: nn.Module, name: str) -> bool:
    owner = model.get_submodule(name.rpartition(".")[0])
    return owner in (model.get_input_embeddings(), model.get_output_embeddings())


def _rows(stored: torch.Tensor, target: torch.Tensor, needed: int, where: str) -> torch.Tensor:
    """The stored rows in a table as long as ours; either may have rows behind those of the tokenizer."""
    if len(stored) < needed:
        raise CheckpointError(f"{where} has {len(stored)} rows, the tokenizer {needed} tokens: it is of another one")
    count = min(len(stored), len(target))
    return torch.cat([stored[:count].to(target.dtype), target[count:]])
