"""A batch without images still passes through tower and projector.

Otherwise a rank whose micro-batch has no image leaves those parameters unused: DDP reports them, ZeRO-3 and FSDP wait
for the other ranks for ever. ``collate_images`` gives such a batch one zero image that no token refers to.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mllm.models.huggingface import gathered

TEXT = ("input_ids", "attention_mask")
PICTURES = ("pixel_values", "mm_encoder_outputs")  # the latter: features that transformers 5.23 generates from


class ImageTokenFamily:
    """Mixed into families of transformers whose image tokens are replaced by what ``get_image_features`` gives."""

    def load_model(self, processor: Any) -> nn.Module:
        """As of the family; its forward runs the tower on the zero image of a batch without image tokens."""
        model = super().load_model(processor)
        _ZeroImage(model.model)
        return model

    def generate(self, model: nn.Module, batch: Mapping[str, torch.Tensor], **options: Any) -> torch.Tensor:
        """New ids alone (B, new); the tower runs once, on the zero image too."""
        whole = getattr(model, "module", model)
        is_older = PICTURES[1] not in inspect.signature(whole.forward).parameters
        if is_older and options.get("num_beams", 1) > 1 and not _has_image(whole.model, batch["input_ids"]):
            # transformers 5.17 cannot repeat an image of no sample for every beam.
            batch = {name: batch[name] for name in TEXT}
        # transformers 5.23 asks for the features outside of the forward pass that gathers a module's own parameters.
        with gathered(list(whole.model.parameters(recurse=False))):
            return super().generate(model, batch, **options)


class _ZeroImage:
    """Takes the zero image away from a model's inputs, and adds the tower's output times zero to the embeddings.

    The latter when the language model is called: ZeRO-3 has then gathered the parameters of ``module`` itself, and
    embeddings, tower and language model follow one another as they do for an image.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.inputs = module, None
        module.register_forward_pre_hook(self.take, with_kwargs=True)
        module.language_model.register_forward_pre_hook(self.add, with_kwargs=True)

    def take(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = args[0] if args else kwargs.get("input_ids")  # LLaVA-NeXT's come by position
        self.inputs = None
        given = [name for name in PICTURES if kwargs.get(name) is not None]
        if given and ids is not None and not _has_image(module, ids):
            self.inputs = kwargs if "pixel_values" in given else None
            kwargs = {**kwargs, **dict.fromkeys(given)}
        return args, kwargs

    def add(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if self.inputs is not None:
            zero, self.inputs = _tower_times_zero(self.module, self.inputs), None
            kwargs = {**kwargs, "inputs_embeds": kwargs["inputs_embeds"] + zero}
        return args, kwargs


def _tower_times_zero(module: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
    """0 that depends on every parameter of tower and projector."""
    names = inspect.signature(module.get_image_features).parameters
    found = module.get_image_features(**{name: inputs[name] for name in names if inputs.get(name) is not None})
    features = [*found.pooler_output, *(one for layer in getattr(found, "deepstack_features", ()) for one in layer)]
    return sum(one.sum() for one in features) * 0


def _has_image(module: nn.Module, ids: torch.Tensor) -> bool:
    return bool((ids == module.config.image_token_id).any())
