"""The Phi-CLIP module: CLIP, projector, causal language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
)


class PhiClipConfig(PreTrainedConfig):
    """Configurations of the two parts, and ``features``: "pooled" or "patch"."""

    model_type = "phi_clip"

    def __init__(
        self,
        vision_config: Any = None,
        text_config: Any = None,
        features: str = "pooled",
        image_token_id: int | None = None,
        **options: Any,
    ) -> None:
        self.vision_config = sub_config(vision_config or {}, "clip_vision_model")
        self.text_config = sub_config(text_config or {}, "phi3")
        self.features, self.image_token_id = features, image_token_id
        super().__init__(**options)

    def get_text_config(self, *args: Any, **options: Any) -> Any:
        """The language model's."""
        return self.text_config


class Projector(nn.Module):
    """LayerNorm, linear, GELU, linear: (..., width) → (..., hidden)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(width)
        self.proj = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Project the last dimension."""
        return self.proj(self.pre_norm(vectors))


class PhiClipForConditionalGeneration(PreTrainedModel):
    """The projected vectors of the image take the places of ``image_token_id`` among the text's embeddings."""

    config_class = PhiClipConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = True

    def __init__(self, config: PhiClipConfig) -> None:
        super().__init__(config)
        vision, hidden = config.vision_config, config.text_config.hidden_size
        width = vision.projection_dim if config.features == "pooled" else vision.hidden_size
        self.vision_model = CLIPVisionModelWithProjection._from_config(vision, **attention(config))
        self.projector = Projector(width, hidden)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config, **attention(config))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """The language model's."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """The language model's."""
        self.language_model.set_output_embeddings(value)

    def can_generate(self) -> bool:
        """No generation settings of its own: the language model generates."""
        return False

    def embed(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, T, hidden) of ids (B, T) and images (N, 3, H, W) in the order of their places."""
        found = self.vision_model(pixel_values=pixel_values)
        pooled = self.config.features == "pooled"
        vectors = self.projector(found.image_embeds[:, None] if pooled else found.last_hidden_state).flatten(0, 1)
        places = input_ids == self.config.image_token_id
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(places, 0))
        if not places.any():
            # The zero image of a batch of text: tower and projector must take part on every rank.
            return embeddings + vectors.sum() * 0
        return embeddings.masked_scatter(places[..., None], vectors.to(embeddings.dtype))

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's output; ``logits`` (B, T, vocabulary)."""
        embeddings = self.embed(input_ids, pixel_values)
        return self.language_model(inputs_embeds=embeddings, attention_mask=attention_mask, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """New ids alone (B, new): from embeddings transformers returns no prompt."""
        embeddings = self.embed(input_ids, pixel_values)
        return self.language_model.generate(inputs_embeds=embeddings, attention_mask=attention_mask, **options)


def attention(config: PreTrainedConfig) -> dict[str, Any]:
    """The attention that was asked for, for a part of the model; nothing where transformers may choose."""
    asked = config._attn_implementation_internal  # transformers 5.17 to 5.23
    return {} if asked is None else {"attn_implementation": asked}


def sub_config(value: Any, default: str) -> Any:
    """A configuration object from itself or from its dictionary, of ``model_type`` or ``default``."""
    if not isinstance(value, Mapping):
        return value
    values = dict(value)
    return AutoConfig.for_model(values.pop("model_type", default), **values)
