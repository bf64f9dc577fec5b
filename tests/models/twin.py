"""What the contract test of model families needs to know of a family's tiny twin."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tiny
from PIL import Image, ImageDraw

from mllm.registry import DATASETS


@dataclass
class Twin:
    """``model_args`` and ``conversation`` build the twin; the rest says where families rightly differ.

    ``plain`` is whether transformers reads the saved folder by itself, ``lora`` the config part ``tune.lora`` that
    suits the family, ``mark`` what the trained text ends with. ``prepare`` changes the built model (opens gates that
    start closed). ``captions`` families are shown plain captions instead of boxes; those without ``text_only`` refuse a
    sample without an image.
    """

    model_args: dict[str, Any]
    conversation: dict[str, Any] = field(default_factory=lambda: dict(tiny.CONVERSATION))
    plain: bool = True
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 4, "alpha": 8, "modules_to_save": ["projector"]})
    mark: str = "</s>"
    prepare: Callable[[Any], None] = lambda model: None
    captions: bool = False
    text_only: bool = True

    def items(self, count: int) -> Any:
        """A data set of ``count`` items that the family can read."""
        if not self.captions:
            return DATASETS.build({**tiny.REC, "count": count})
        return [_captioned(number) for number in range(count)]


def _captioned(number: int) -> dict[str, Any]:
    colour, shape = ("red", "blue", "green")[number % 3], ("circle", "square")[number % 2]
    image = Image.new("RGB", (48, 36), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "circle" else draw.rectangle)([4, 4, 20 + 2 * number, 30], fill=colour)
    caption = f"a {colour} {shape} on white" + " and a small one" * (number % 4)
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": caption}]
    return {"image": image, "conversations": turns}
