"""Flamingo (arXiv 2204.14198) over an unmodified causal language model, numerically equal to OpenFlamingo 2.0.1.

Letters in shapes: B samples, M images of a sample, F frames, V vision tokens of a frame, N latents, T text tokens,
D widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, CLIPVisionModel, PreTrainedConfig, PreTrainedModel

from mllm.models.modules.phi_clip import attention, sub_config


class FlamingoConfig(PreTrainedConfig):
    """Configurations of the two parts and of what lies between: every n-th layer of the language model is gated."""

    model_type = "mllm_flamingo"

    def __init__(
        self,
        vision_config: Any = None,
        text_config: Any = None,
        cross_attn_every_n_layers: int = 4,
        depth: int = 6,
        latents: int = 64,
        heads: int = 8,
        head_width: int = 64,
        image_token_id: int | None = None,
        **options: Any,
    ) -> None:
        self.vision_config = sub_config(vision_config or {}, "clip_vision_model")
        self.text_config = sub_config(text_config or {}, "llama")
        self.cross_attn_every_n_layers, self.depth, self.latents = cross_attn_every_n_layers, depth, latents
        self.heads, self.head_width, self.image_token_id = heads, head_width, image_token_id
        super().__init__(**options)

    def get_text_config(self, *args: Any, **options: Any) -> Any:
        """The language model's."""
        return self.text_config


def feed_forward(width: int) -> nn.Sequential:
    """LayerNorm, linear to four times the width, GELU, linear back; no biases in the linear layers."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
    )


class Attention(nn.Module):
    """Multi-head attention from one sequence to another; queries, keys and values without biases."""

    def __init__(self, width: int, source: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(source, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)

    def attend(self, queries: torch.Tensor, source: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(…, I, D) and (…, J, D) → (…, I, D); ``mask`` (…, 1, I, J) is true where attention may go."""
        q, k, v = (self._split(one) for one in (self.to_q(queries), *self.to_kv(source).chunk(2, dim=-1)))
        found = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(found.transpose(-3, -2).flatten(-2))

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class PerceiverAttention(Attention):
    """Latents attend to the image's tokens and to themselves."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__(width, width, heads, head_width)
        self.norm_media, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, media: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """(B, M, F·V, D), (B, M, N, D) → (B, M, N, D)."""
        latents = self.norm_latents(latents)
        return self.attend(latents, torch.cat([self.norm_media(media), latents], dim=-2))


class Perceiver(nn.Module):
    """The tokens of an image → ``latents`` vectors of the same width."""

    def __init__(self, width: int, config: FlamingoConfig) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(config.latents, width))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, config.heads, config.head_width), feed_forward(width)])
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, media: torch.Tensor) -> torch.Tensor:
        """(B, M, F·V, D) → (B, M, N, D)."""
        latents = self.latents.expand(*media.shape[:2], -1, -1)
        for attend, feed in self.layers:
            latents = attend(media, latents) + latents
            latents = feed(latents) + latents
        return self.norm(latents)


class MaskedCrossAttention(Attention):
    """A text token attends to the last image before it, and to nothing where there is none."""

    def __init__(self, width: int, source: int, heads: int, head_width: int) -> None:
        super().__init__(width, source, heads, head_width)
        self.norm = nn.LayerNorm(width)

    def forward(self, text: torch.Tensor, media: torch.Tensor, image_number: torch.Tensor) -> torch.Tensor:
        """(B, T, D), (B, M, N, D), the number of each token's image from 1, 0 for none, (B, T) → (B, T, D)."""
        owners = torch.arange(1, media.shape[1] + 1, device=text.device).repeat_interleave(media.shape[2])
        seen = image_number[..., None] == owners
        # A row without any place to go would give nan: it may look everywhere and is set to zero afterwards.
        blind = ~seen.any(dim=-1, keepdim=True)
        found = self.attend(self.norm(text), media.flatten(1, 2), (seen | blind)[:, None])
        return found.masked_fill(blind, 0.0)


class GatedCrossAttention(nn.Module):
    """Cross-attention and feed-forward behind tanh gates that start closed: at first the text passes unchanged."""

    def __init__(self, width: int, source: int, config: FlamingoConfig) -> None:
        super().__init__()
        self.attn = MaskedCrossAttention(width, source, config.heads, config.head_width)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(width)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, text: torch.Tensor, media: torch.Tensor, image_number: torch.Tensor) -> torch.Tensor:
        """(B, T, D) → (B, T, D)."""
        text = self.attn(text, media, image_number) * self.attn_gate.tanh() + text
        return self.ff(text) * self.ff_gate.tanh() + text


class FlamingoForConditionalGeneration(PreTrainedModel):
    """Tower → perceiver → gated cross-attention in front of decoder layers, put there by hooks.

    The image that a token sees follows from all ids before it: what a cached step has read is counted on, so that
    decoding with a cache, without one and with beams agree. ``<image>`` is never generated.
    """

    config_class = FlamingoConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = True

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__(config)
        width = config.vision_config.hidden_size
        self.vision_encoder = CLIPVisionModel._from_config(config.vision_config, **attention(config))
        self.perceiver = Perceiver(width, config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config, **attention(config))
        every, count = config.cross_attn_every_n_layers, config.text_config.num_hidden_layers
        self.gated_cross_attn_layers = nn.ModuleDict(
            {
                str(number): GatedCrossAttention(config.text_config.hidden_size, width, config)
                for number in range(count)
                if (number + 1) % every == 0
            }
        )
        self._media: torch.Tensor | None = None
        self._image_number: torch.Tensor | None = None
        self.hook_language_model()
        self.post_init()

    def hook_language_model(self) -> None:
        """Put the hooks on ``language_model``; needed again when it was replaced."""
        layers = decoder_layers(self.language_model, self.config.text_config.num_hidden_layers)
        self.language_model.register_forward_pre_hook(self._count_images, with_kwargs=True)
        for number, gated in self.gated_cross_attn_layers.items():
            layers[int(number)].register_forward_pre_hook(_Gate(self, gated), with_kwargs=True)

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """The language model's."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """The language model's."""
        self.language_model.set_output_embeddings(value)

    def can_generate(self) -> bool:
        """No generation settings of its own: the language model generates."""
        return False

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, M, F, 3, H, W) → (B, M, N, D), from CLIP's last layer without class token and without its last norm."""
        found = self.vision_encoder(pixel_values=pixel_values.flatten(0, 2)).last_hidden_state[:, 1:]
        return self.perceiver(found.unflatten(0, pixel_values.shape[:3]).flatten(2, 3))

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's output for ids (B, T) and images (B, M, F, 3, H, W); ``logits`` (B, T, vocabulary)."""
        self._media = self.encode_images(pixel_values)
        return self.language_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Prompt and new ids (B, T + new)."""
        self._media = self.encode_images(pixel_values)
        options.setdefault("suppress_tokens", [self.config.image_token_id])
        return self.language_model.generate(input_ids=input_ids, attention_mask=attention_mask, **options)

    def _count_images(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Number the image of each token of this call, on top of those that the cache has read."""
        ids, cache = kwargs["input_ids"], kwargs.get("past_key_values")
        number = (ids == self.config.image_token_id).cumsum(dim=1)
        if cache is not None and cache.get_seq_length() > 0:
            # Beams of a sample have read the same prompt, and no step writes an image: the last count is every beam's.
            number = number + self._image_number[:, -1:]
        self._image_number = number


class _Gate:
    """Runs a gated block on what a decoder layer is given."""

    def __init__(self, model: FlamingoForConditionalGeneration, gated: GatedCrossAttention) -> None:
        self.model, self.gated = model, gated

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        text = args[0] if args else kwargs["hidden_states"]
        media = self.model._media
        if len(media) != len(text):  # beams, or several answers to a prompt
            media = media.repeat_interleave(len(text) // len(media), dim=0)
        text = self.gated(text, media, self.model._image_number)
        return ((text, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": text})


def decoder_layers(language_model: nn.Module, count: int) -> nn.ModuleList:
    """The list of the decoder's layers, wherever the language model keeps it."""
    lists = [one for one in language_model.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    if not lists:
        raise ValueError(f"{type(language_model).__name__} has no list of {count} layers to put cross-attention before")
    return lists[0]
