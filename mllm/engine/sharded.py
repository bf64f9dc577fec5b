"""Models that FSDP or DeepSpeed hold in pieces: which layers are split off, and generating from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method


def name_wrapped_layers(trainer: Any) -> None:
    """Let FSDP split off, and compute again, the family's layers where the launch configuration names none."""
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.transformer_cls_names_to_wrap is None:
        present = {type(module).__name__ for module in trainer.model.modules()}
        plugin.transformer_cls_names_to_wrap = [name for name in trainer.family.wrap if name in present] or None
    if plugin is not None and trainer.model.get_output_embeddings() is None:
        _leave_table_in_root(trainer)
    if getattr(plugin, "activation_checkpointing", False):
        # A layer that is computed again must not find the keys of the first time; generation asks for them by itself.
        trainer.model.config.get_text_config().use_cache = False


def _leave_table_in_root(trainer: Any) -> None:
    """Keep accelerate (1.15) from splitting off the word table of a model that does not name its head.

    The head may share the table (BLIP's does, and its bias with the layer above): both must lie in one group.
    """
    prepare, model = trainer.accelerator.prepare, trainer.model

    def prepare_whole(*objects: Any, **options: Any) -> Any:
        model.get_input_embeddings = lambda: None
        try:
            return prepare(*objects, **options)
        finally:
            del model.get_input_embeddings

    trainer.accelerator.prepare = prepare_whole


def model_to_generate(trainer: Any) -> nn.Module:
    """The model for ``family.generate``; FSDP and ZeRO-3 split it here if no training has."""
    if trainer.is_fsdp_enabled and not isinstance(trainer.model, FSDPModule):
        # accelerate splits a model only together with an optimiser (1.15).
        unused = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
        trainer.model = trainer.model_wrapped = trainer.accelerator.prepare(trainer.model, unused)[0]
        register_fsdp_forward_method(trainer.model, "generate")
    elif trainer.is_deepspeed_enabled and trainer.deepspeed is None:
        if trainer.accelerator.state.deepspeed_plugin.zero_stage == 3:
            from transformers.integrations.deepspeed import deepspeed_init

            deepspeed_init(trainer, num_training_steps=0, inference=True)
            trainer.deepspeed = trainer.model_wrapped = trainer.accelerator.prepare(trainer.model)
        else:
            trainer.model.to(trainer.args.device)
    return trainer.accelerator.unwrap_model(trainer.model_wrapped)


def own_storage(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gathered state with tensors that are views of padded buffers copied out; safetensors writes no such views."""
    return {
        name: tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
        for name, tensor in state.items()
    }
