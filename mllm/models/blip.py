"""BLIP captioning (arXiv 2201.12086) in Hugging Face's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, ClassVar

import torch
from torch import nn

from mllm.errors import DataError
from mllm.models.base import weights_folder
from mllm.models.checkpoints import stored_tensors
from mllm.models.huggingface import HuggingFaceFamily, load_whole
from mllm.models.processor import Processor
from mllm.registry import MODELS

HEAD_BIAS = "text_decoder.cls.predictions.decoder.bias"
HEAD, TABLE = "text_decoder.cls.predictions.decoder.weight", "text_decoder.bert.embeddings.word_embeddings.weight"


class BlipProcessor(Processor):
    """One picture a sample; no id stands for it."""

    def image_ids(self, size: tuple[int, int]) -> list[int]:
        """None: the decoder attends to the picture."""
        return []

    def image_features(self, images: Sequence[Any]) -> dict[str, Any]:
        """``pixel_values`` (1, 3, H, W); DataError unless there is exactly one image."""
        if len(images) != 1:
            raise DataError(f"BLIP describes one image, the sample has {len(images)}: drop it, or take another model")
        return super().image_features(images)


@MODELS.register_module()
class BLIP(HuggingFaceFamily):
    """BLIP's captioning model: a ViT, and a text decoder that attends to it; template ``blip``.

    The loss is over captions and their end marks; padding is never trained (Hugging Face's own loss trains it where
    ``labels`` are the ids). The decoder starts with ``[DEC]``, in training as in generation.
    """

    model_class = "BlipForConditionalGeneration"
    processor_class = BlipProcessor
    parts: ClassVar = {"vision": ("vision_model",)}
    wrap = ("BlipTextLayer", "BlipEncoderLayer")

    def image_of(self, config: Any) -> dict[str, Any]:
        """The vision transformer's size."""
        return {"size": config.vision_config.image_size, "tokens": 0}

    def add_tokens(self, tokenizer: Any, image: Mapping[str, Any]) -> None:
        """``[DEC]`` opens a text: BERT's tokenizer has no such mark."""
        if tokenizer.bos_token is None:
            tokenizer.add_special_tokens({"bos_token": "[DEC]", "eos_token": tokenizer.sep_token})

    def model_config(self) -> Any:
        """The configuration; a checkpoint whose head differs from its word table stays untied."""
        config = super().model_config()
        if self.pretrained and not _head_is_table(weights_folder(self.pretrained, self._key("pretrained"))):
            config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
        return config

    def load_pretrained(self, folder: Path) -> nn.Module:
        """As of the base; the head's bias is one with its layer's, whether the table is tied or not."""
        options = {**self.options, "config": self.model_config()}
        model = load_whole(self.transformers_class(), folder, options, may_lack=(HEAD_BIAS,))
        predictions = model.text_decoder.cls.predictions
        predictions.decoder.bias = predictions.bias
        return model

    def load_model(self, processor: Processor) -> nn.Module:
        """As of the base; the model's ``generate`` takes prompts as they are."""
        model = super().load_model(processor)
        model.generate = MethodType(_generate, model)
        return model


def _generate(
    model: nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    pixel_values: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Prompts and new ids (B, T).

    Hugging Face's own ``generate`` replaces the first id of a prompt and drops its last (transformers 5.23). This is a
    method of the model because FSDP has to gather the weights that lie in no layer before it.
    """
    features = model.vision_model(pixel_values=pixel_values).last_hidden_state
    return model.text_decoder.generate(
        input_ids=input_ids,
        attention_mask=attention_mask,
        encoder_hidden_states=features,
        encoder_attention_mask=torch.ones(features.shape[:-1], dtype=torch.long, device=features.device),
        **options,
    )


def _head_is_table(folder: Path) -> bool:
    found = stored_tensors(folder, (HEAD, TABLE))
    return len(found) < 2 or torch.equal(*found.values())
