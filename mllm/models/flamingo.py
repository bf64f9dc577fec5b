"""OpenFlamingo (arXiv 2308.01390) and Otter (arXiv 2305.03726): several images in context, cross-attention to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from mllm.conversation.flamingo_templates import ANSWER, END_OF_CHUNK
from mllm.models.huggingface import load_own
from mllm.models.pair import PairFamily
from mllm.models.processor import Processor
from mllm.registry import MODELS
from mllm.structures import IMAGE_PLACEHOLDER


class FlamingoProcessor(Processor):
    """One token a picture; the pictures of a sample lie in a row."""

    def collate_images(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``pixel_values`` (B, images, 1, 3, H, W); where a sample has fewer, zeros that no token refers to."""
        size = self.image["size"]
        most = max([1, *(len(sample["pixel_values"]) for sample in samples if sample["pixel_values"] is not None)])
        pixels = torch.zeros(len(samples), most, 1, 3, size, size)
        for row, sample in zip(pixels, samples, strict=True):
            if sample["pixel_values"] is not None:
                row[: len(sample["pixel_values"]), 0] = sample["pixel_values"]
        return {"pixel_values": pixels}


@MODELS.register_module()
class OpenFlamingo(PairFamily):
    """Perceiver and gated cross-attention over an unmodified causal language model.

    Trained: perceiver, gated blocks, and of the embeddings the rows of the added tokens. ``weights`` is a file of
    OpenFlamingo's or Otter's trained parts, put on ``vision_tower`` + ``language_model``;
    ``cross_attn_every_n_layers`` is theirs (4 for the 9B models, 1 for 3B).
    """

    processor_class = FlamingoProcessor
    parts: ClassVar = {
        "vision": ("vision_encoder.",),
        "perceiver": ("perceiver.",),
        "cross_attention": ("gated_cross_attn_layers.",),
    }
    frozen = ("vision", "language")
    saves = "trained"
    decayed = ("gated_cross_attn_layers.",)
    wrap = ("LlamaDecoderLayer", "MptBlock", "GPTNeoXLayer", "OPTDecoderLayer", "GatedCrossAttention")
    added: ClassVar[tuple[str, ...]] = (END_OF_CHUNK, IMAGE_PLACEHOLDER)

    def __init__(self, weights: str | None = None, cross_attn_every_n_layers: int = 4, **options: Any) -> None:
        super().__init__(**options)
        self.weights, self.every = weights, cross_attn_every_n_layers

    def add_tokens(self, tokenizer: Any, image: Mapping[str, Any]) -> None:
        """The tokens that open an image, an answer, and end one."""
        new = [token for token in self.added if token not in tokenizer.get_added_vocab()]
        tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)

    def build_processor(
        self, conversation: Mapping[str, Any], generation: Mapping[str, Any] | None = None
    ) -> Processor:
        """As of the base; Otter's template brings its ``<answer>``."""
        processor = super().build_processor(conversation, generation)
        if ANSWER in processor.template.controls and ANSWER not in processor.tokenizer.get_added_vocab():
            processor.tokenizer.add_special_tokens(
                {"extra_special_tokens": [ANSWER]}, replace_extra_special_tokens=False
            )
        return processor

    def transformers_class(self) -> Any:
        """Our own module."""
        from mllm.models.modules.flamingo import FlamingoForConditionalGeneration

        return FlamingoForConditionalGeneration

    def pair_config(self, vision: Any, text: Any) -> Any:
        """Configuration over a tower and a language model."""
        config_class = self.transformers_class().config_class
        return config_class(vision_config=vision, text_config=text, cross_attn_every_n_layers=self.every)

    def image_of(self, config: Any) -> dict[str, Any]:
        """CLIP's size; one token."""
        return {"size": config.vision_config.image_size, "tokens": 1}

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """CLIP's last norm: the layer before it is read."""
        return [name for name, _ in model.named_parameters() if "post_layernorm" in name]

    def load_pretrained(self, folder: Path) -> nn.Module:
        """A folder in our own layout."""
        return load_own(self, folder)

    def load_model(self, processor: Processor) -> nn.Module:
        """As of the base; the rows of the added tokens are to be trained, new here or not."""
        model = super().load_model(processor)
        known = processor.tokenizer.get_added_vocab()
        model.new_token_rows = sorted({known[token] for token in (*self.added, ANSWER) if token in known})
        if self.weights:
            from mllm.models.flamingo_files import load_trained_parts

            load_trained_parts(model, self.weights)
        return model

    def put_vision(self, model: nn.Module, tower: nn.Module) -> None:
        """The tower."""
        model.vision_encoder = tower

    def tower_of(self, model: nn.Module) -> nn.Module:
        """The tower."""
        return model.vision_encoder

    def put_language(self, model: nn.Module, language: nn.Module) -> None:
        """The language model, with the hooks of the cross-attention."""
        model.language_model = language
        model.hook_language_model()


@MODELS.register_module()
class Otter(OpenFlamingo):
    """OpenFlamingo tuned on instructions: ``<answer>`` opens an answer; template ``otter``."""

    added: ClassVar[tuple[str, ...]] = (END_OF_CHUNK, IMAGE_PLACEHOLDER, ANSWER)
