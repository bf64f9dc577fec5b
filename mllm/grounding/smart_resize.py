"""Qwen-VL's canvas: sides that are multiples of its patches, an area within bounds, nearly the aspect of the image."""

from __future__ import annotations

import math
import random

from mllm.errors import ConfigError, DataError
from mllm.grounding.transforms import Resize, Transform, View
from mllm.registry import TRANSFORMS

MOST_ELONGATED = 200


def smart_size(image_size: tuple[int, int], factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The (width, height) that Qwen-VL resizes an image of ``image_size`` (width, height) to.

    Both are multiples of ``factor``, their product lies between ``min_pixels`` and ``max_pixels`` where the aspect
    ratio allows it; a size that already is so stays. The rule is ``smart_resize`` of qwen-vl-utils and transformers.
    DataError for an image more than 200 times as long as wide.
    """
    width, height = image_size
    if max(image_size) > MOST_ELONGATED * min(image_size):
        fault = f"the image is {width}x{height}, more than {MOST_ELONGATED} times as long as wide"
        raise DataError(f"{fault}; such an image has no canvas: crop or pad it", kind="canvas")
    rounded = tuple(round(side / factor) * factor for side in image_size)
    if math.prod(rounded) > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        return tuple(max(factor, math.floor(side / shrink / factor) * factor) for side in image_size)
    if math.prod(rounded) < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        return tuple(math.ceil(side * grow / factor) * factor for side in image_size)
    return rounded


@TRANSFORMS.register_module()
class SmartResize(Transform):
    """Resize (bicubic) to a size that Qwen-VL sees as it is, its aspect ratio nearly kept; put it last.

    ``factor`` is the patch times the merge of the model: 28 for Qwen2.5-VL, 32 for Qwen3-VL. Every ``factor`` squared
    pixels are one token.
    """

    def __init__(self, factor: int = 28, min_pixels: int = 56 * 56, max_pixels: int = 1280 * 28 * 28) -> None:
        if factor < 1 or not factor**2 <= max_pixels or not 1 <= min_pixels <= max_pixels:
            raise ConfigError(
                f"SmartResize: factor={factor!r}, min_pixels={min_pixels!r}, max_pixels={max_pixels!r}; "
                "expected 1 <= min_pixels <= max_pixels and max_pixels of at least factor * factor"
            )
        self.factor, self.min_pixels, self.max_pixels = factor, min_pixels, max_pixels

    def __call__(self, view: View, rng: random.Random) -> View:
        """Resize the image and scale the frame with it."""
        return Resize(smart_size(view.image.size, self.factor, self.min_pixels, self.max_pixels))(view, rng)
