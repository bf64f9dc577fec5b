"""LLaVA-NeXT (LLaVA 1.6): LLaVA on tiles of images of any size, in Hugging Face's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mllm.errors import ConfigError
from mllm.models.llava import HUB_NAMES, LLaVA
from mllm.models.tiles import TileProcessor
from mllm.registry import MODELS

LAYOUTS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


@MODELS.register_module()
class LLaVANext(LLaVA):
    """LLaVA-NeXT; its starts are LLaVA's. An image keeps its own size: ``conversation.transforms`` may be empty.

    ``image_grid_pinpoints`` are the (height, width) that a new pair lays images out in, multiples of the tower's size;
    those of 1×2, 2×1, 2×2, 3×1 and 1×3 tiles unless given. A model that is loaded has its own.
    """

    model_class = "LlavaNextForConditionalGeneration"
    processor_class = TileProcessor
    parts: ClassVar = {"vision": ("vision_tower",), "projector": ("multi_modal_projector", "image_newline")}
    file_names = (*HUB_NAMES, ("model.image_newline", "image_newline"))

    def __init__(self, image_grid_pinpoints: Sequence[Sequence[int]] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.grid = image_grid_pinpoints

    def image_of(self, config: Any) -> dict[str, Any]:
        """The tower's size, its patches, the resolutions, and the most tokens that one of them takes."""
        size, patch = config.vision_config.image_size, config.vision_config.patch_size
        tokens, grid = super().image_of(config)["tokens"], [list(one) for one in config.image_grid_pinpoints]
        if tokens != (size // patch) ** 2:
            raise ConfigError(f"{self.name}: mm_vision_select_feature must be 'patch': a class token has no tile")
        most = max(tokens + height // patch * (width // patch + 1) for height, width in grid)
        return {**super().image_of(config), "tokens": most, "patch": patch, "grid": grid}

    def pair_config(self, vision: Any, text: Any) -> Any:
        """LLaVA-NeXT's configuration over a tower and a language model."""
        config = super().pair_config(vision, text)
        size = vision.image_size
        config.image_grid_pinpoints = [list(one) for one in self.grid or ()] or [
            [h * size, w * size] for h, w in LAYOUTS
        ]
        return config
