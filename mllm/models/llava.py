"""LLaVA: a CLIP-like vision tower, a projector and any causal language model, in Hugging Face's classes.

Papers: arXiv 2304.08485 (v1), 2310.03744 (v1.5). Weights: Hugging Face's layout, or a new pair of tower and language
model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from mllm.errors import CheckpointError, ConfigError
from mllm.models.checkpoints import read_weights
from mllm.models.huggingface import load_own
from mllm.models.no_image import ImageTokenFamily
from mllm.models.pair import PairFamily
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


@MODELS.register_module()
class LLaVA(ImageTokenFamily, PairFamily):
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
        projector: str | None = None,
        mm_vision_select_layer: int = -2,
        mm_vision_select_feature: str = "patch",
        mm_use_im_start_end: bool = False,
        mm_use_im_patch_token: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if mm_vision_select_feature not in ("patch", "cls_patch"):
            raise ConfigError(
                f"{self.name}: mm_vision_select_feature={mm_vision_select_feature!r}; known: patch, cls_patch"
            )
        self.projector = projector
        self.select_layer = mm_vision_select_layer
        self.select_strategy = "default" if mm_vision_select_feature == "patch" else "full"
        self.tokens = {"token": "<im_patch>"} if mm_use_im_patch_token else {}
        self.tokens |= {"start": "<im_start>", "end": "<im_end>"} if mm_use_im_start_end else {}

    def image_of(self, config: Any) -> dict[str, Any]:
        """The tower's size, and a token for each patch."""
        vision = config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2
        tokens += _has_class_token(vision) and config.vision_feature_select_strategy != "default"
        return {"size": vision.image_size, "tokens": tokens, **self.tokens}

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """The tower's layers behind the projected one, its last norm and pooling."""
        return _behind_projected_layer(model)

    def pair_config(self, vision: Any, text: Any) -> Any:
        """LLaVA's configuration over a tower and a language model."""
        return self.transformers_class().config_class(
            text_config=text,
            vision_config=vision,
            vision_feature_layer=self.select_layer,
            vision_feature_select_strategy=self.select_strategy if _has_class_token(vision) else "full",
            tie_word_embeddings=text.tie_word_embeddings,
        )

    def put_language(self, model: nn.Module, language: nn.Module) -> None:
        """The decoder and its head."""
        model.model.language_model, model.lm_head = language.get_decoder(), language.get_output_embeddings()

    def put_vision(self, model: nn.Module, tower: nn.Module) -> None:
        """The tower."""
        model.model.vision_tower = tower

    def tower_of(self, model: nn.Module) -> nn.Module:
        """The tower."""
        return model.model.vision_tower

    def _build(self, processor: Processor) -> nn.Module:
        model = super()._build(processor)
        if self.projector:
            _load_projector(model, self.projector)
        return model


@MODELS.register_module()
class LLaVAv1(LLaVA):
    """LLaVA v1: the projector is one linear layer; 224 px, 256 patches between ``<im_start>`` and ``<im_end>``."""

    def __init__(self, mm_use_im_start_end: bool = True, mm_use_im_patch_token: bool = True, **options: Any) -> None:
        super().__init__(
            mm_use_im_start_end=mm_use_im_start_end, mm_use_im_patch_token=mm_use_im_patch_token, **options
        )

    def transformers_class(self) -> Any:
        """LLaVA with a linear projector."""
        from mllm.models.modules.llava_v1 import LlavaV1ForConditionalGeneration

        return LlavaV1ForConditionalGeneration

    def load_pretrained(self, folder: Path) -> nn.Module:
        """A folder in our own layout: no class of transformers has this projector."""
        return load_own(self, folder)


def _behind_projected_layer(model: nn.Module) -> list[str]:
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
