"""CLIP features, a small projector and a causal language model, Phi-3.5 above all.

The image's vectors stand between two texts; ``pooled`` gives one (CLIP's joint space, 512 wide for ViT-B/32),
``patch`` all of the last layer (50 of 768). Facts: github ChintanShahDS/MultiModal_FineTuning, commit 2014ae63.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from mllm.errors import ConfigError
from mllm.models.huggingface import load_own
from mllm.models.pair import PairFamily
from mllm.registry import MODELS

FEATURES = ("pooled", "patch")


@MODELS.register_module()
class PhiCLIP(PairFamily):
    """CLIP, a projector (LayerNorm, two linear layers with GELU between) and any causal language model.

    ``features`` is "pooled" or "patch". Template ``phi3`` with a ``system`` text gives the original's prompt; answers
    end with ``<|end|>``, which is trained. With a pretrained pair only the projector is new.
    """

    parts: ClassVar = {"vision": ("vision_model.",), "projector": ("projector.",)}
    frozen = ("vision",)
    wrap = ("Phi3DecoderLayer", "CLIPEncoderLayer")

    def __init__(self, features: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        if features not in (None, *FEATURES):
            raise ConfigError(f"PhiCLIP: features={features!r}; known: {', '.join(FEATURES)}")
        self.features = features

    def transformers_class(self) -> Any:
        """Our own module."""
        from mllm.models.modules.phi_clip import PhiClipForConditionalGeneration

        return PhiClipForConditionalGeneration

    def pair_config(self, vision: Any, text: Any) -> Any:
        """Configuration over a tower and a language model."""
        return self.transformers_class().config_class(
            vision_config=vision, text_config=text, features=self.features or "pooled"
        )

    def model_config(self) -> Any:
        """The configuration, with the ``features`` that were asked for."""
        config = super().model_config()
        config.features = self.features or config.features
        return config

    def image_of(self, config: Any) -> dict[str, Any]:
        """CLIP's size; one vector or all of the last layer."""
        vision = config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return {"size": vision.image_size, "tokens": 1 if config.features == "pooled" else patches + 1}

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """What makes CLIP's pooled vector, where the last layer is read."""
        words = () if model.config.features == "pooled" else ("post_layernorm", "visual_projection")
        return [name for name, _ in model.named_parameters() if any(word in name for word in words)]

    def load_pretrained(self, folder: Path) -> nn.Module:
        """A folder in our own layout."""
        return load_own(self, folder)

    def generate(self, model: nn.Module, batch: Mapping[str, torch.Tensor], **options: Any) -> torch.Tensor:
        """New ids alone (B, new): from embeddings transformers returns no prompt."""
        return getattr(model, "module", model).generate(**batch, **options)
