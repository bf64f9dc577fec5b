"""LLaVA: a CLIP-like vision tower, a projector and any causal language model, in Hugging Face's classes.

Papers: arXiv 2304.08485 (v1), 2310.03744 (v1.5). Weights: Hugging Face's layout, or a new pair of tower and language
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from mllm.errors import CheckpointError, ConfigError
from mllm.models.base import checkpoint_folder, weights_folder
from mllm.models.checkpoints import read_weights
from mllm.models.huggingface import HuggingFaceFamily, load_own
from mllm.models.processor import Processor
from mllm.registry import MODELS

# llava-hf's files on the hub; transformers 4.x and 5.x both read them.
HUB_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)
LAST_LAYER = -2


@MODELS.register_module()
class LLaVA(HuggingFaceFamily):
    """LLaVA v1.5 and its like: any CLIP or SigLIP tower, any causal language model.

    One of three starts: ``pretrained`` (a LLaVA folder), ``vision_tower`` + ``language_model`` (two folders, a new
    projector, or the one in the file ``projector``: LLaVA's ``mm_projector.bin``), or ``config`` (random weights;
    ``vision_config`` and ``text_config`` inside, needs ``tokenizer``). Of a pair, ``mm_vision_select_layer`` and
    ``mm_vision_select_feature`` ("patch" leaves CLIP's class token out, "cls_patch" keeps it) say what is projected.
    ``mm_use_im_start_end`` puts ``<im_start>`` and ``<im_end>`` around an image, ``mm_use_im_patch_token`` makes
    ``<im_patch>`` the token that stands for a patch.
    """

    model_class = "LlavaForConditionalGeneration"
    parts: ClassVar = {"vision": ("vision_tower",), "projector": ("multi_modal_projector",)}
    frozen = ("vision",)
    wrap = ("LlamaDecoderLayer", "CLIPEncoderLayer")
    file_names = HUB_NAMES

    def __init__(
        self,
        pretrained: str | None = None,
        vision_tower: str | None = None,
        language_model: str | None = None,
        projector: str | None = None,
        config: Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        mm_vision_select_layer: int = LAST_LAYER,
        mm_vision_select_feature: str = "patch",
        mm_use_im_start_end: bool = False,
        mm_use_im_patch_token: bool = False,
        **options: Any,
    ) -> None:
        self.vision_tower, self.language_model, self.projector = vision_tower, language_model, projector
        super().__init__(pretrained=pretrained, config=config, tokenizer=tokenizer, **options)
        if mm_vision_select_feature not in ("patch", "cls_patch"):
            raise ConfigError(
                f"{self.name}: mm_vision_select_feature={mm_vision_select_feature!r}; known: patch, cls_patch"
            )
        self.select_layer = mm_vision_select_layer
        self.select_strategy = "default" if mm_vision_select_feature == "patch" else "full"
        self.tokens = {"token": "<im_patch>"} if mm_use_im_patch_token else {}
        self.tokens |= {"start": "<im_start>", "end": "<im_end>"} if mm_use_im_start_end else {}

    def _check_start(self, **starts: Any) -> None:
        pair = (self.vision_tower, self.language_model)
        if any(pair) and not all(pair):
            raise ConfigError(f"{self.name}: vision_tower and language_model go together; one of them is missing")
        super()._check_start(**starts, **{"vision_tower + language_model": self.language_model})

    def image_of(self, config: Any) -> dict[str, Any]:
        """The tower's size, and a token for each patch."""
        vision = config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2
        tokens += _has_class_token(vision) and config.vision_feature_select_strategy != "default"
        return {"size": vision.image_size, "tokens": tokens, **self.tokens}

    def load_model(self, processor: Processor) -> nn.Module:
        """As of the base; the tower's layers behind the projected one have no gradient: nothing reads them."""
        model = super().load_model(processor)
        model.model.register_forward_pre_hook(_run_tower_on_zero_image, with_kwargs=True)
        for name in unused_parameters(model):
            model.get_parameter(name).requires_grad_(False)
        return model

    def tokenizer_folder(self) -> Path:
        """The language model's where the model is made of a pair."""
        if self.language_model and not self.tokenizer:
            return checkpoint_folder(self.language_model, "model_args.language_model")
        return super().tokenizer_folder()

    def model_config(self) -> Any:
        """The configuration of the folder, of ``config``, or of the pair."""
        if not self.language_model:
            return super().model_config()
        from transformers import AutoConfig, LlavaConfig

        text = AutoConfig.from_pretrained(weights_folder(self.language_model, "model_args.language_model"))
        vision = AutoConfig.from_pretrained(weights_folder(self.vision_tower, "model_args.vision_tower"))
        vision = getattr(vision, "vision_config", vision)
        strategy = self.select_strategy if _has_class_token(vision) else "full"
        layer = self.select_layer
        return LlavaConfig(
            text_config=text,
            vision_config=vision,
            vision_feature_layer=layer,
            vision_feature_select_strategy=strategy,
            tie_word_embeddings=text.tie_word_embeddings,
        )

    def _build(self, processor: Processor) -> nn.Module:
        model = super()._build(processor)
        if self.language_model:
            self._load_pair(model)
        if self.projector:
            _load_projector(model, self.projector)
        return model

    def _load_pair(self, model: nn.Module) -> None:
        from transformers import AutoModelForCausalLM

        folder = weights_folder(self.language_model, "model_args.language_model")
        language = AutoModelForCausalLM.from_pretrained(folder, **self.options)
        model.model.language_model.load_state_dict(language.get_decoder().state_dict())
        model.lm_head.load_state_dict(language.get_output_embeddings().state_dict())
        folder = weights_folder(self.vision_tower, "model_args.vision_tower")
        tower_class = type(model.model.vision_tower)
        tower, info = tower_class.from_pretrained(folder, output_loading_info=True, **self.options)
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise CheckpointError(
                f"model_args.vision_tower: {folder} lacks {len(missing)} tensors, first {missing[0]!r}"
            )
        model.model.vision_tower = tower


@MODELS.register_module()
class LLaVAv1(LLaVA):
    """LLaVA v1: the projector is one linear layer; 224 px, 256 patches between ``<im_start>`` and ``<im_end>``."""

    def __init__(self, mm_use_im_start_end: bool = True, mm_use_im_patch_token: bool = True, **options: Any) -> None:
        super().__init__(
            mm_use_im_start_end=mm_use_im_start_end, mm_use_im_patch_token=mm_use_im_patch_token, **options
        )

    def transformers_class(self) -> Any:
        """LLaVA with a linear projector."""
        return _linear_llava()

    def load_pretrained(self, folder: Path) -> nn.Module:
        """A folder in our own layout: no class of transformers has this projector."""
        return load_own(self, folder)


@cache
def _linear_llava() -> Any:
    from transformers import LlavaForConditionalGeneration

    class LlavaV1ForConditionalGeneration(LlavaForConditionalGeneration):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            shape = config.vision_config.hidden_size, config.text_config.hidden_size
            self.model.multi_modal_projector = nn.Linear(*shape)
            self.post_init()

    return LlavaV1ForConditionalGeneration


def unused_parameters(model: nn.Module) -> list[str]:
    """Parameters of the tower behind the layer that is projected, its last norm and pooling included."""
    config, tower = model.config, model.model.vision_tower
    layers = config.vision_feature_layer
    count = config.vision_config.num_hidden_layers
    layers = layers if isinstance(layers, list) else [layers]
    used = max(layer + count + 1 if layer < 0 else layer for layer in layers)
    found = []
    for name, _ in tower.named_parameters():
        behind = ".layers." in f".{name}" and int(f".{name}".split(".layers.")[1].split(".")[0]) >= used
        if behind or "post_layernorm" in name or name.startswith(("head.", "vision_model.head.")):
            found.append(f"model.vision_tower.{name}")
    return found


def _has_class_token(vision: Any) -> bool:
    return vision.model_type.startswith("clip")


def _load_projector(model: nn.Module, path: str) -> None:
    """Read LLaVA's ``mm_projector.bin`` (``model.mm_projector.{0,2}.*``, or ``.weight`` and ``.bias`` of v1)."""
    stored = {name.rpartition("mm_projector.")[2]: value for name, value in read_weights(path).items()}
    numbers = {"0.": "linear_1.", "2.": "linear_2."}
    named = {next((new + n[2:] for old, new in numbers.items() if n.startswith(old)), n): v for n, v in stored.items()}
    target = model.model.multi_modal_projector
    expected = {name: value.shape for name, value in target.state_dict().items()}
    if {name: value.shape for name, value in named.items()} != expected:
        raise CheckpointError(
            f"model_args.projector: {path} holds {sorted(stored)[:4]}, expected a projector of "
            f"{ {name: tuple(shape) for name, shape in expected.items()} }"
        )
    target.load_state_dict(named)


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
