"""Qwen2.5-VL (arXiv 2502.13923) and Qwen3-VL (arXiv 2511.21631) in Hugging Face's classes, for images and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from mllm.models.huggingface import HuggingFaceFamily
from mllm.models.no_image import ImageTokenFamily
from mllm.models.processor import Processor
from mllm.models.tiles import PatchProcessor
from mllm.registry import MODELS

HALF = (0.5, 0.5, 0.5)


class QwenVL(ImageTokenFamily, HuggingFaceFamily):
    """What the two have in common: an image of its own size between ``<|vision_start|>`` and ``<|vision_end|>``.

    Template ``chat_template``. ``pixel_bounds`` are the least and most pixels of a resized image where the folder of
    ``pretrained`` does not say; the transform ``SmartResize`` makes images smaller.
    """

    processor_class = PatchProcessor
    parts: ClassVar = {"projector": ("visual.merger", "visual.deepstack_merger_list"), "vision": ("visual.",)}
    frozen = ("vision",)
    pixel_bounds: ClassVar[tuple[int, int]]

    def image_of(self, config: Any) -> dict[str, Any]:
        """Patches, their merging, the bounds of an image's size, and the tokens around it."""
        vision, written = config.vision_config, self.written_image()
        edges = written.get("size", {})
        least = written.get("min_pixels") or edges.get("shortest_edge", self.pixel_bounds[0])
        most = written.get("max_pixels") or edges.get("longest_edge", self.pixel_bounds[1])
        sides = {"patch": vision.patch_size, "merge": vision.spatial_merge_size, "temporal": vision.temporal_patch_size}
        bounds = {"min_pixels": least, "max_pixels": most, "tokens": most // (sides["patch"] * sides["merge"]) ** 2}
        return {**sides, **bounds, "token": "<|image_pad|>", "start": "<|vision_start|>", "end": "<|vision_end|>"}

    def load_model(self, processor: Processor) -> nn.Module:
        """As of the base; the configuration knows the tokens around an image."""
        model = super().load_model(processor)
        for side in ("start", "end"):
            token = processor.tokenizer.convert_tokens_to_ids(processor.image[side])
            setattr(model.config, f"vision_{side}_token_id", token)
        return model


@MODELS.register_module()
class Qwen25VL(QwenVL):
    """Qwen2.5-VL: boxes in pixels of the resized image (``Qwen25Formatter``, for images of one square size)."""

    model_class = "Qwen2_5_VLForConditionalGeneration"
    wrap = ("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock")
    file_names = (("model.visual.", "visual."), ("model.language_model.", "model."))
    pixel_bounds = (56 * 56, 16384 * 28 * 28)


@MODELS.register_module()
class Qwen3VL(QwenVL):
    """Qwen3-VL: boxes in thousandths of the image (``Qwen3Formatter``)."""

    model_class = "Qwen3VLForConditionalGeneration"
    wrap = ("Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock")
    pixel_bounds = (256 * 256, 4096 * 4096)

    def __init__(self, image_mean: Sequence[float] = HALF, image_std: Sequence[float] = HALF, **options: Any) -> None:
        super().__init__(image_mean=image_mean, image_std=image_std, **options)
