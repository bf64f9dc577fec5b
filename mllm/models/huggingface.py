"""Families that transformers has: what loading, tokenizer, embeddings and empty batches have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import nn

from mllm.errors import CheckpointError, ConfigError
from mllm.models.base import Family, checkpoint_folder, weights_folder
from mllm.models.checkpoints import gathered
from mllm.models.config_files import check_model_type
from mllm.models.processor import Processor, read_saved
from mllm.models.tokenizers import load_tokenizer
from mllm.structures import IMAGE_PLACEHOLDER

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class HuggingFaceFamily(Family):
    """A model class of transformers, from ``pretrained`` (a folder in its layout) or ``config`` (random weights).

    A subclass names ``model_class`` and gives ``image_of``; ``tokenizer`` is a folder, needed beside ``config``.
    ``from_scratch`` keeps the configuration of ``pretrained`` and draws its weights anew. ``attn_implementation`` is
    transformers' choice (sdpa where the class has it) unless named: "flash_attention_2", "eager".
    """

    model_class: ClassVar[str]
    processor_class: ClassVar[type[Processor]] = Processor

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        from_scratch: bool = False,
        attn_implementation: str | None = None,
        dtype: str = "float32",
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
    ) -> None:
        self.name = type(self).__name__
        self._check_start(pretrained=pretrained, config=config)
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ConfigError(f"{self.name}: dtype={dtype!r} is no torch type; expected float32, bfloat16 or float16")
        self.pretrained, self.config, self.tokenizer = pretrained, config, tokenizer
        self.from_scratch = from_scratch
        self.options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
        if attn_implementation is not None:
            self.options["attn_implementation"] = attn_implementation
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def _check_start(self, **starts: Any) -> None:
        if sum(bool(value) for value in starts.values()) != 1:
            raise ConfigError(f"{self.name}: give exactly one of {', '.join(starts)}")

    def image_of(self, config: Any) -> dict[str, Any]:
        """``size`` and ``tokens`` of the processor's ``image``, from the model's configuration."""
        raise NotImplementedError

    def build_processor(
        self, conversation: Mapping[str, Any], generation: Mapping[str, Any] | None = None
    ) -> Processor:
        """Tokenizer and image sizes; what the checkpoint saved fills what ``conversation`` does not say."""
        source = self.partial or (weights_folder(self.pretrained, self._key("pretrained")) if self.pretrained else None)
        saved = read_saved(source) if source else {}
        tokenizer = load_tokenizer(self.partial or self.tokenizer_folder())
        image = saved.get("image") or self._image()
        known = len(tokenizer)
        self.add_tokens(tokenizer, image)
        conversation = {**saved.get("conversation", {}), **conversation}
        generation = {**saved.get("generation", {}), **(generation or {})}
        made_by = {"type": self.name, **self.model_args}
        processor = self.processor_class(tokenizer, image, conversation, generation, made_by)
        tokenizer.add_tokens(processor.formatter.tokens())
        # A partial checkpoint's tokenizer has them already, its base does not.
        processor.added = saved.get("added", []) if self.partial else []
        processor.added += tokenizer.convert_ids_to_tokens(range(known, len(tokenizer))) if not self.config else []
        return processor

    def add_tokens(self, tokenizer: Any, image: Mapping[str, Any]) -> None:
        """Give the tokenizer the tokens that stand for an image, where it lacks them."""
        tokens = (image.get("token", IMAGE_PLACEHOLDER), image.get("start"), image.get("end"))
        new = [token for token in tokens if token and not _knows(tokenizer, token)]
        if new:
            tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)

    def load_model(self, processor: Processor) -> nn.Module:
        """The model in its ``dtype``; embedding rows of new tokens start at the mean of the old ones."""
        try:
            model = self._build(processor)
        except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"the {self.name} model could not be built: {str(error).splitlines()[0]}") from error
        fit_embeddings(model, processor)
        if processor.image_token_id is not None:
            model.config.image_token_id = processor.image_token_id
        for name in self.unused_parameters(model):
            model.get_parameter(name).requires_grad_(False)
        return model

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """Names of parameters that no output depends on; with a gradient they would stall DDP's reduction."""
        return []

    def _build(self, processor: Processor) -> nn.Module:
        model_class = self.transformers_class()
        if self.pretrained and not self.from_scratch:
            return self.load_pretrained(weights_folder(self.pretrained, self._key("pretrained")))
        config = self.model_config()
        text = (self.config or {}).get("text_config", self.config)
        if text is not None and "vocab_size" not in text:
            config.get_text_config().vocab_size = len(processor.tokenizer)
        return model_class._from_config(config, **self.options)

    def load_pretrained(self, folder: Path) -> nn.Module:
        """The model with the weights of a folder in any layout that transformers reads for it."""
        return load_whole(self.transformers_class(), folder, {**self.options, "config": self.model_config()})

    def transformers_class(self) -> Any:
        """The class of the model."""
        import transformers

        return getattr(transformers, self.model_class)

    def model_config(self) -> Any:
        """transformers' configuration object, from the folder or from ``config``."""
        config_class = self.transformers_class().config_class
        if self.pretrained:
            folder = weights_folder(self.pretrained, self._key("pretrained"))
            check_model_type(folder, config_class.model_type, self.name, self._key("pretrained"))
            return config_class.from_pretrained(folder)
        return config_class(**plain(self.config))

    def tokenizer_folder(self) -> Path:
        """The folder that holds the tokenizer."""
        for name in ("tokenizer", "pretrained"):
            if getattr(self, name):
                return checkpoint_folder(getattr(self, name), self._key(name))
        raise ConfigError(f"{self.name}: model_args.tokenizer is not set; a model from config needs one")

    def _image(self) -> dict[str, Any]:
        written = self.written_image()
        mean, std = written.get("image_mean", self.image_mean), written.get("image_std", self.image_std)
        return {"mean": mean, "std": std, **self.image_of(self.model_config())}

    def written_image(self) -> dict[str, Any]:
        """What ``preprocessor_config.json`` of ``pretrained`` says; {} without one."""
        if not self.pretrained:
            return {}
        path = weights_folder(self.pretrained, self._key("pretrained")) / "preprocessor_config.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    @staticmethod
    def _key(name: str) -> str:
        return f"model_args.{name}"


def load_own(family: HuggingFaceFamily, folder: Path) -> nn.Module:
    """The model with weights in the layout that ``family.save_weights`` writes: for classes that are our own."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = family.transformers_class()._from_config(family.model_config(), **family.options)
    family.load_weights(model, folder)
    return model


def load_whole(model_class: Any, folder: Path, options: Mapping[str, Any], may_lack: Sequence[str] = ()) -> nn.Module:
    """``from_pretrained`` from a folder; CheckpointError unless every tensor of the model is there and no other.

    ``may_lack`` names those that the caller puts right where they are missing.
    """
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **options)
    missing = sorted(set(info["missing_keys"]) - set(may_lack))
    faults = missing or sorted(info["unexpected_keys"])
    if faults:
        kind = "lacks" if missing else "has unknown"
        raise CheckpointError(
            f"model_args.pretrained: {str(folder)!r} {kind} {len(faults)} tensors, first {faults[0]!r}"
        )
    return model


def fit_embeddings(model: nn.Module, processor: Processor) -> None:
    """Rows for all tokens; new ones start at the mean of the old and are listed in ``model.new_token_rows``.

    New are tokens that were added to the tokenizer, though the table may have spare rows for them, and rows that the
    table lacks.
    """
    # Not the weight's shape: ZeRO-3 holds it in pieces and shows none.
    rows, needed = model.get_input_embeddings().num_embeddings, len(processor.tokenizer)
    new = sorted({*processor.tokenizer.convert_tokens_to_ids(processor.added), *range(rows, needed)})
    if not new:
        return
    if needed > rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
    modules = dict.fromkeys((model.get_input_embeddings(), model.get_output_embeddings()))
    weights = [module.weight for module in modules]
    with gathered(weights), torch.no_grad():
        for weight in weights:
            weight[new] = weight[: new[0]].float().mean(dim=0).to(weight.dtype)
    model.new_token_rows = new


def plain(value: Any) -> Any:
    """Dicts and lists of a config as Python's own."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _knows(tokenizer: Any, token: str) -> bool:
    return tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id)
