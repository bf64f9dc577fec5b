"""Processors for images of any size: LLaVA-NeXT's tiles and Qwen-VL's patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from mllm.errors import ConfigError
from mllm.grounding.qwen_formatter import Qwen25Formatter
from mllm.grounding.smart_resize import smart_size
from mllm.models.processor import Processor


class TileProcessor(Processor):
    """LLaVA-NeXT's anyres: the whole image in one tile, then its tiles at the best of the resolutions in ``grid``.

    ``image`` holds besides ``patch`` (pixels) and ``grid``, the (height, width) that an image may be laid out in.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

        self._tiler = LlavaNextImageProcessorPil(**self.image_form())

    def token_count(self, size: tuple[int, int]) -> int:
        """Those of the whole, and of the tiles without the rows or columns of padding, a newline behind each row."""
        (width, height), side = size, self.image["size"] // self.image["patch"]
        rows, columns = (side * count for count in self._layout(size))
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return side * side + rows * (columns + 1)

    def image_features(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """``pixel_values``: (tiles, 3, H, W) of each image, or None; ``image_sizes`` their (height, width)."""
        made = [self._tiler(image.convert("RGB"), return_tensors="pt")["pixel_values"][0] for image in images]
        return {"pixel_values": made or None, "image_sizes": [image.size[::-1] for image in images]}

    def collate_images(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``pixel_values`` (images, most tiles, 3, H, W), padded by zeros, and ``image_sizes`` (images, 2).

        A batch without any image gets one zero image that no token refers to.
        """
        side = self.image["size"]
        tiles = [one for sample in samples for one in sample["pixel_values"] or ()]
        sizes = [size for sample in samples for size in sample["image_sizes"]]
        if not tiles:
            rows, columns = self._layout((side, side))
            tiles, sizes = [torch.zeros(1 + rows * columns, 3, side, side)], [(side, side)]
        return {
            "pixel_values": torch.nn.utils.rnn.pad_sequence(tiles, batch_first=True),
            "image_sizes": torch.tensor(sizes),
        }

    def picture(self, pixels: torch.Tensor) -> Image.Image:
        """The tile that holds the whole image, its aspect ratio lost."""
        return super().picture(pixels[0])

    def image_form(self) -> dict[str, Any]:
        """LLaVA-NeXT's image processor."""
        form = {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": self.image["grid"]}
        return {**super().image_form(), **form}

    def _layout(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles."""
        from transformers.image_processing_utils import select_best_resolution

        height, width = select_best_resolution(size[::-1], self.image["grid"])
        return height // self.image["size"], width // self.image["size"]


class PatchProcessor(Processor):
    """Qwen-VL: an image is resized to whole patches (``smart_size``) and takes as many tokens as it has merged ones.

    ``image`` holds ``patch`` and ``temporal`` (pixels and frames of a patch), ``merge`` (patches on a token's side),
    ``min_pixels`` and ``max_pixels``. A canvas that is no size of the model's is resized here; the transform
    ``SmartResize`` does so before.
    """

    @property
    def factor(self) -> int:
        """Pixels on the side of a token."""
        return self.image["patch"] * self.image["merge"]

    def token_count(self, size: tuple[int, int]) -> int:
        """Merged patches of the resized image."""
        width, height = self._seen(size)
        return width // self.factor * (height // self.factor)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Normalised pixels (3, H, W) of the resized image; ConfigError where the text holds pixels of another."""
        size = self._seen(image.size)
        if image.size == size:
            return self.normalized(image)
        if isinstance(self.formatter, Qwen25Formatter):
            was, seen = "{}x{}".format(*image.size), "{}x{}".format(*size)
            raise ConfigError(
                f"the text holds pixels of a {was} canvas, but the model sees {seen}: give conversation.formatter and "
                f"the Resize of conversation.transforms a side that is a multiple of {self.factor}, its square from "
                f"{self.image['min_pixels']} to {self.image['max_pixels']}"
            )
        return self.normalized(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))

    def image_features(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """``pixel_values``: (3, H, W) of each image, or None."""
        return {"pixel_values": [self.pixels(image) for image in images] or None}

    def collate(self, samples: Sequence[Mapping[str, Any]], *, layout: str = "right") -> dict[str, torch.Tensor]:
        """As of the base, and ``mm_token_type_ids`` (B, T): 1 where a token stands for a piece of an image."""
        batch = super().collate(samples, layout=layout)
        return {**batch, "mm_token_type_ids": (batch["input_ids"] == self.image_token_id).long()}

    def collate_images(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``pixel_values`` (patches of all images, numbers of a patch) and ``image_grid_thw`` (images, 3) in patches.

        A batch without any image gets one zero image that no token refers to.
        """
        images = [one for sample in samples for one in sample["pixel_values"] or ()]
        images = images or [torch.zeros(3, self.factor, self.factor)]
        patch = self.image["patch"]
        return {
            "pixel_values": torch.cat([self._patches(one) for one in images]),
            "image_grid_thw": torch.tensor([[1, *(side // patch for side in one.shape[1:])] for one in images]),
        }

    def image_form(self) -> dict[str, Any]:
        """Qwen-VL's image processor."""
        least, most = self.image["min_pixels"], self.image["max_pixels"]
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "patch_size": self.image["patch"],
            "temporal_patch_size": self.image["temporal"],
            "merge_size": self.image["merge"],
            "size": {"shortest_edge": least, "longest_edge": most},
            "min_pixels": least,
            "max_pixels": most,
            "image_mean": list(self.image["mean"]),
            "image_std": list(self.image["std"]),
        }

    def _seen(self, size: tuple[int, int]) -> tuple[int, int]:
        return smart_size(size, self.factor, self.image["min_pixels"], self.image["max_pixels"])

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """(patches, 3 · temporal · patch²), the patches of a token behind one another, a still image in every frame."""
        patch, merge = self.image["patch"], self.image["merge"]
        height, width = (side // self.factor for side in pixels.shape[1:])
        split = pixels.reshape(3, height, merge, patch, width, merge, patch).permute(1, 4, 2, 5, 0, 3, 6)
        frames = split.unsqueeze(5).expand(-1, -1, -1, -1, -1, self.image["temporal"], -1, -1)
        return frames.reshape(height * width * merge**2, -1)
