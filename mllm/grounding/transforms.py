"""Image transforms that keep the frame: where the original pixels lie on the canvas the model sees."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from mllm.errors import ConfigError, choices
from mllm.registry import TRANSFORMS
from mllm.structures import Box, Frame, Point

RESAMPLING = {name.lower(): value for name, value in Image.Resampling.__members__.items()}


@dataclass(frozen=True)
class View:
    """An image on its way to the model; ``boxes`` and ``points`` stay in original pixels, ``frame`` maps them."""

    image: Image.Image
    frame: Frame
    boxes: list[Box] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    @classmethod
    def of(cls, image: Image.Image, boxes: Sequence[Box] = (), points: Sequence[Point] = ()) -> View:
        """The image as it is, on a canvas of its own size."""
        return cls(image, Frame(image.size, image.size), list(boxes), list(points))


class Transform:
    """Base: ``__call__`` gives a new view; what ``__init__`` takes is kept under the same names."""

    def __call__(self, view: View, rng: random.Random) -> View:
        """Apply to ``view``; every random choice is drawn from ``rng``."""
        raise NotImplementedError

    def to_config(self) -> dict[str, Any]:
        """What ``TRANSFORMS.build`` turns into an equal transform."""
        return {"type": type(self).__name__, **vars(self)}


@TRANSFORMS.register_module()
class Compose(Transform):
    """Several transforms, one after the other."""

    def __init__(self, transforms: Sequence[Mapping[str, Any] | Transform]) -> None:
        self.transforms = [TRANSFORMS.build(one) if isinstance(one, Mapping) else one for one in transforms]

    def __call__(self, view: View, rng: random.Random) -> View:
        """Apply all in order."""
        for transform in self.transforms:
            view = transform(view, rng)
        return view

    def to_config(self) -> dict[str, Any]:
        """What ``TRANSFORMS.build`` turns into an equal transform."""
        return {"type": "Compose", "transforms": [one.to_config() for one in self.transforms]}


@TRANSFORMS.register_module()
class SquareCanvas(Transform):
    """Pad the short side with ``colour`` to a square; the image is centred at offset floor(|w − h| / 2)."""

    def __init__(self, colour: Sequence[int] = (255, 255, 255)) -> None:
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ConfigError(f"SquareCanvas: colour={colour!r}; expected three values from 0 to 255")
        self.colour = tuple(colour)

    def __call__(self, view: View, rng: random.Random) -> View:
        """Pad; the result is an RGB image."""
        image = view.image.convert("RGB")
        width, height = image.size
        side = max(width, height)
        x, y = (side - width) // 2, (side - height) // 2
        canvas = Image.new("RGB", (side, side), self.colour)
        canvas.paste(image, (x, y))
        offset = (view.frame.offset[0] + x, view.frame.offset[1] + y)
        return replace(view, image=canvas, frame=replace(view.frame, canvas_size=(side, side), offset=offset))


@TRANSFORMS.register_module()
class Resize(Transform):
    """Resize to ``(width, height)``, or to a square where ``size`` is one number; the aspect ratio is not kept."""

    def __init__(self, size: int | Sequence[int], resample: str = "bicubic") -> None:
        width_height = (size, size) if isinstance(size, int) else tuple(size)
        if len(width_height) != 2 or not all(type(value) is int and value > 0 for value in width_height):
            raise ConfigError(f"Resize: size={size!r}; expected a positive number or (width, height)")
        if resample not in RESAMPLING:
            raise ConfigError(f"Resize: resample={resample!r}; {choices(resample, RESAMPLING)}")
        self.size = size if isinstance(size, int) else width_height
        self.resample = resample

    def __call__(self, view: View, rng: random.Random) -> View:
        """Resize the image and scale the frame with it."""
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        ratio = (size[0] / view.image.width, size[1] / view.image.height)
        frame = replace(
            view.frame,
            canvas_size=size,
            offset=(view.frame.offset[0] * ratio[0], view.frame.offset[1] * ratio[1]),
            scale=(view.frame.scale[0] * ratio[0], view.frame.scale[1] * ratio[1]),
        )
        return replace(view, image=view.image.resize(size, RESAMPLING[self.resample]), frame=frame)


@TRANSFORMS.register_module()
class RandomHorizontalFlip(Transform):
    """Mirror left and right with ``probability``; never where boxes or points exist: words like "left" name them."""

    def __init__(self, probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError(f"RandomHorizontalFlip: probability={probability!r}; expected 0 to 1")
        self.probability = probability

    def __call__(self, view: View, rng: random.Random) -> View:
        """Mirror or not; one number is drawn either way, so that later choices do not depend on the target."""
        drawn = rng.random()
        if view.boxes or view.points or drawn >= self.probability:
            return view
        frame = view.frame
        mirrored = replace(
            frame,
            offset=(frame.canvas_size[0] - frame.offset[0], frame.offset[1]),
            scale=(-frame.scale[0], frame.scale[1]),
        )
        return replace(view, image=view.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), frame=mirrored)
