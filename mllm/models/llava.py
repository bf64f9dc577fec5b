"""LLaVA: a CLIP-like vision tower, a projector and any causal language model, in Hugging Face's classes.

Paper: arXiv 2304.08485, 2310.03744. Weights: Hugging Face's layout, or a new pair of tower and language model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from mllm.errors import CheckpointError, ConfigError
from mllm.models.base import Family, Processor, checkpoint_folder, read_saved, weights_folder
from mllm.models.tokenizers import load_tokenizer
from mllm.models.tuning import freeze
from mllm.registry import MODELS
from mllm.structures import IMAGE_PLACEHOLDER

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# llava-hf's files on the hub; transformers 4.x and 5.x both read them.
HUB_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)


@MODELS.register_module()
class LLaVA(Family):
    """LLaVA v1.5 and its like.

    One of three starts: ``pretrained`` (a LLaVA folder), ``vision_tower`` + ``language_model`` (two folders, a new
    projector), or ``config`` (random weights; ``vision_config`` and ``text_config`` inside, needs ``tokenizer``).
    ``from_scratch`` keeps the configuration of ``pretrained`` and draws its weights anew. ``freeze`` names parts
    ("vision", "projector", "language") or regular expressions over parameter names.
    """

    parts: ClassVar = {"vision": ("vision_tower",), "projector": ("multi_modal_projector",)}
    wrap = ("LlamaDecoderLayer", "CLIPEncoderLayer")
    file_names = HUB_NAMES

    def __init__(
        self,
        pretrained: str | None = None,
        vision_tower: str | None = None,
        language_model: str | None = None,
        config: Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        from_scratch: bool = False,
        freeze: Sequence[str] = ("vision",),
        attn_implementation: str = "sdpa",
        dtype: str = "float32",
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
    ) -> None:
        starts = [pretrained is not None, vision_tower is not None or language_model is not None, config is not None]
        if sum(starts) != 1:
            raise ConfigError("LLaVA: give exactly one of pretrained, vision_tower + language_model, or config")
        if not hasattr(torch, dtype):
            raise ConfigError(f"LLaVA: dtype={dtype!r} is no torch type; expected float32, bfloat16 or float16")
        self.pretrained = pretrained
        self.vision_tower = vision_tower
        self.language_model = language_model
        self.config = config
        self.tokenizer = tokenizer
        self.from_scratch = from_scratch
        self.freeze = tuple(freeze)
        self.attn_implementation = attn_implementation
        self.dtype = getattr(torch, dtype)
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def build_processor(
        self, conversation: Mapping[str, Any], generation: Mapping[str, Any] | None = None
    ) -> Processor:
        """Tokenizer and image sizes; what the checkpoint saved fills what ``conversation`` does not say."""
        saved = read_saved(weights_folder(self.pretrained, "model_args.pretrained")) if self.pretrained else {}
        tokenizer = load_tokenizer(self._tokenizer_folder())
        if tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER) in (None, tokenizer.unk_token_id):
            tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE_PLACEHOLDER]})
        conversation = {**saved.get("conversation", {}), **conversation}
        generation = {**saved.get("generation", {}), **(generation or {})}
        processor = Processor(tokenizer, saved.get("image") or self._image(), conversation, generation)
        tokenizer.add_tokens(processor.formatter.tokens())
        return processor

    def build_model(self, processor: Processor) -> nn.Module:
        """The model on the CPU, in ``dtype``; embedding rows of new tokens start at the mean of the old ones."""
        from transformers import LlavaForConditionalGeneration

        options = {"dtype": self.dtype, "attn_implementation": self.attn_implementation}
        try:
            if self.pretrained and not self.from_scratch:
                folder = weights_folder(self.pretrained, "model_args.pretrained")
                model = _load_whole(LlavaForConditionalGeneration, folder, options)
            else:
                config = self._llava_config()
                if self.config and "vocab_size" not in self.config["text_config"]:
                    config.text_config.vocab_size = len(processor.tokenizer)
                model = LlavaForConditionalGeneration._from_config(config, **options)
        except (OSError, ValueError, ImportError) as error:
            raise CheckpointError(f"the LLaVA model could not be built: {str(error).splitlines()[0]}") from error
        if self.language_model:
            self._load_halves(model, options)
        _fit_embeddings(model, processor)
        model.config.image_token_id = processor.image_token_id
        model.model.register_forward_pre_hook(_run_tower_on_zero_image, with_kwargs=True)
        freeze(model, self, self.freeze)
        return model

    def _load_halves(self, model: nn.Module, options: Mapping[str, Any]) -> None:
        from transformers import AutoModelForCausalLM

        folder = weights_folder(self.language_model, "model_args.language_model")
        language = AutoModelForCausalLM.from_pretrained(folder, **options)
        model.model.language_model.load_state_dict(language.get_decoder().state_dict())
        model.lm_head.load_state_dict(language.get_output_embeddings().state_dict())
        folder = weights_folder(self.vision_tower, "model_args.vision_tower")
        tower_class = type(model.model.vision_tower)
        tower, info = tower_class.from_pretrained(folder, output_loading_info=True, **options)
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise CheckpointError(
                f"model_args.vision_tower: {folder} lacks {len(missing)} tensors, first {missing[0]!r}"
            )
        model.model.vision_tower = tower

    def _tokenizer_folder(self) -> Path:
        for name in ("tokenizer", "pretrained", "language_model"):
            if getattr(self, name):
                return checkpoint_folder(getattr(self, name), f"model_args.{name}")
        raise ConfigError("LLaVA: model_args.tokenizer is not set; a model from config needs one")

    def _llava_config(self) -> Any:
        from transformers import AutoConfig, LlavaConfig

        if self.pretrained:
            return LlavaConfig.from_pretrained(weights_folder(self.pretrained, "model_args.pretrained"))
        if self.config:
            return LlavaConfig(**_plain(self.config))
        text = AutoConfig.from_pretrained(weights_folder(self.language_model, "model_args.language_model"))
        vision = AutoConfig.from_pretrained(weights_folder(self.vision_tower, "model_args.vision_tower"))
        return LlavaConfig(text_config=text, vision_config=getattr(vision, "vision_config", vision))

    def _image(self) -> dict[str, Any]:
        config = self._llava_config()
        vision = config.vision_config
        mean, std = self.image_mean, self.image_std
        if self.pretrained:
            path = weights_folder(self.pretrained, "model_args.pretrained") / "preprocessor_config.json"
            if path.is_file():
                written = json.loads(path.read_text())
                mean, std = written.get("image_mean", mean), written.get("image_std", std)
        tokens = (vision.image_size // vision.patch_size) ** 2
        tokens += config.vision_feature_select_strategy != "default"
        return {"size": vision.image_size, "mean": mean, "std": std, "tokens": tokens}


def _load_whole(model_class: Any, folder: Path, options: Mapping[str, Any]) -> nn.Module:
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **options)
    faults = sorted(info["missing_keys"]) or sorted(info["unexpected_keys"])
    if faults:
        kind = "lacks" if info["missing_keys"] else "has unknown"
        raise CheckpointError(
            f"model_args.pretrained: {str(folder)!r} {kind} {len(faults)} tensors, first {faults[0]!r}"
        )
    return model


def _run_tower_on_zero_image(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Let a batch without image tokens pass through tower and projector, times zero.

    Otherwise a rank whose micro-batch has no image leaves those parameters unused: DDP reports them, ZeRO-3 and FSDP
    wait for the other ranks for ever.
    """
    pixel_values, ids = kwargs.get("pixel_values"), kwargs.get("input_ids")
    if pixel_values is None or ids is None or bool((ids == module.config.image_token_id).any()):
        return args, kwargs
    layer, strategy = module.config.vision_feature_layer, module.config.vision_feature_select_strategy
    features = module.get_image_features(
        pixel_values=pixel_values, vision_feature_layer=layer, vision_feature_select_strategy=strategy
    ).pooler_output
    unused = sum(one.sum() for one in features) * 0
    embeddings = module.get_input_embeddings()(ids) + unused
    return args, {**kwargs, "pixel_values": None, "input_ids": None, "inputs_embeds": embeddings}


def _fit_embeddings(model: nn.Module, processor: Processor) -> None:
    rows, needed = model.get_input_embeddings().weight.shape[0], len(processor.tokenizer)
    if needed <= rows:
        return
    model.resize_token_embeddings(needed, mean_resizing=False)
    with torch.no_grad():
        for module in {model.get_input_embeddings(), model.get_output_embeddings()}:
            module.weight[rows:] = module.weight[:rows].float().mean(dim=0).to(module.weight.dtype)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
