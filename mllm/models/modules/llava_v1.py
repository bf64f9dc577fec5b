"""LLaVA with the linear projector of v1."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import LlavaForConditionalGeneration


class LlavaV1ForConditionalGeneration(LlavaForConditionalGeneration):
    """``multi_modal_projector`` is one linear layer, tower → language model."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.post_init()
