"""LLaVA with the linear projector of v1."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration


class LlavaV1Config(LlavaConfig):
    """LLaVA's configuration under a name of its own: transformers' class would look for another projector."""

    model_type = "llava_v1"


class LlavaV1ForConditionalGeneration(LlavaForConditionalGeneration):
    """``multi_modal_projector`` is one linear layer, tower → language model."""

    config_class = LlavaV1Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.post_init()
