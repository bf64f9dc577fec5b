"""Families made of a vision tower and a causal language model that have folders of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mllm.errors import CheckpointError, ConfigError
from mllm.models.base import checkpoint_folder, weights_folder
from mllm.models.config_files import auto_config
from mllm.models.huggingface import HuggingFaceFamily
from mllm.models.processor import Processor


class PairFamily(HuggingFaceFamily):
    """Starts from ``pretrained``, from ``config``, or from ``vision_tower`` + ``language_model``: two folders.

    A subclass gives ``pair_config``; what lies between the two is new.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        vision_tower: str | None = None,
        language_model: str | None = None,
        config: Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        **options: Any,
    ) -> None:
        self.vision_tower, self.language_model = vision_tower, language_model
        super().__init__(pretrained=pretrained, config=config, tokenizer=tokenizer, **options)

    def pair_config(self, vision: Any, text: Any) -> Any:
        """The configuration of the whole, from those of tower and language model."""
        raise NotImplementedError

    def model_config(self) -> Any:
        """The configuration of the folder, of ``config``, or of the pair."""
        if not self.language_model:
            return super().model_config()
        text, vision = (
            auto_config(weights_folder(getattr(self, name), self._key(name)), self._key(name))
            for name in ("language_model", "vision_tower")
        )
        vision = getattr(vision, "vision_config", vision)
        for name, config, part in (("language_model", text, "vocab_size"), ("vision_tower", vision, "patch_size")):
            if not hasattr(config, part):
                raise CheckpointError(
                    f"{self._key(name)}: {getattr(self, name)!r} holds a model of type {config.model_type!r}, which is "
                    f"no {name.replace('_', ' ')} (its config has no {part})"
                )
        return self.pair_config(vision, text)

    def tokenizer_folder(self) -> Path:
        """The language model's where the model is made of a pair."""
        if self.language_model and not self.tokenizer:
            return checkpoint_folder(self.language_model, self._key("language_model"))
        return super().tokenizer_folder()

    def put_language(self, model: nn.Module, language: nn.Module) -> None:
        """Give the model the loaded language model."""
        model.language_model = language

    def put_vision(self, model: nn.Module, tower: nn.Module) -> None:
        """Give the model the loaded tower."""
        model.vision_model = tower

    def tower_of(self, model: nn.Module) -> nn.Module:
        """The model's tower; its class reads ``vision_tower``."""
        return model.vision_model

    def new_parts(self) -> tuple[str, ...]:
        """What lies between the pair, unless a file of its weights is given."""
        given = getattr(self, "projector", None) or getattr(self, "weights", None)
        return tuple(part for part in self.parts if part != "vision") if self.language_model and not given else ()

    def _build(self, processor: Processor) -> nn.Module:
        model = super()._build(processor)
        if self.language_model:
            from transformers import AutoModelForCausalLM

            folder = weights_folder(self.language_model, self._key("language_model"))
            self.put_language(model, AutoModelForCausalLM.from_pretrained(folder, **self.options))
            folder = weights_folder(self.vision_tower, self._key("vision_tower"))
            tower_class = type(self.tower_of(model))
            tower, info = tower_class.from_pretrained(folder, output_loading_info=True, **self.options)
            if info["missing_keys"]:
                missing = sorted(info["missing_keys"])
                fault = f"{folder} lacks {len(missing)} tensors, first {missing[0]!r}"
                raise CheckpointError(f"model_args.vision_tower: {fault}")
            self.put_vision(model, tower)
        return model

    def _check_start(self, **starts: Any) -> None:
        pair = (self.vision_tower, self.language_model)
        if any(pair) and not all(pair):
            raise ConfigError(f"{self.name}: vision_tower and language_model go together; one of them is missing")
        super()._check_start(**starts, **{"vision_tower + language_model": self.language_model})
