"""A drawn world: pictures of coloured shapes at free positions and sizes, each a function of its seed alone.

A scene is found without drawing it; ``Scene.draw`` gives the picture. Boxes are tight, in whole pixels, xyxy with the
right and bottom edge exclusive. Every scene has four to six objects of two or three colours and shapes, so that each
has a neighbour of its own colour or shape.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from mllm.structures import Box, Point

COLORS = {
    "red": (214, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (235, 200, 30),
    "purple": (140, 50, 170),
    "black": (30, 30, 30),
}
KINDS = ("circle", "square", "triangle", "diamond", "cross")
SIZES = {"small": (0.18, 0.24), "large": (0.32, 0.42)}
SIDES = (112, 160)
OBJECTS = (4, 6)
RELATIONS = ("left of", "right of", "above", "below")

_SUPERSAMPLING = 4
_GAP = 3
_PLACING_TRIES = 40
_COLOR_JITTER = 12


@dataclass(frozen=True)
class Shape:
    """One object: what it is, how it is painted and where it lies; ``size`` is its class, ``small`` or ``large``."""

    kind: str
    color: str
    size: str
    box: Box
    paint: tuple[int, int, int]

    @property
    def center(self) -> Point:
        """Middle of the box in pixels."""
        x0, y0, x1, y1 = self.box
        return ((x0 + x1) / 2, (y0 + y1) / 2)

    @property
    def name(self) -> str:
        """All three attributes: ``small red circle``."""
        return f"{self.size} {self.color} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn; objects stand in reading order of their centres, left to right."""

    key: str
    image_size: tuple[int, int]
    background: tuple[int, int, int]
    shapes: tuple[Shape, ...]

    def draw(self) -> Image.Image:
        """The picture in RGB, edges anti-aliased."""
        canvas = Image.new("RGB", self.image_size, self.background)
        for shape in self.shapes:
            x0, y0, x1, y1 = (int(v) for v in shape.box)
            canvas.paste(shape.paint, (x0, y0), _stencil(shape.kind, x1 - x0, y1 - y0))
        return canvas

    def related(self, relation: str, index: int, anchor: int) -> bool:
        """Whether ``shapes[index]`` stands in ``relation`` to ``shapes[anchor]``, judged by their centres."""
        return self.displacement(relation, index, anchor) > 0

    def displacement(self, relation: str, index: int, anchor: int) -> float:
        """How far, in pixels, ``shapes[index]`` lies on the side that ``relation`` names; negative on the other."""
        axis = 0 if relation in ("left of", "right of") else 1
        beyond = self.shapes[index].center[axis] - self.shapes[anchor].center[axis]
        return beyond if relation in ("right of", "below") else -beyond


def random_scene(key: str, rng: random.Random, objects: tuple[int, int] = OBJECTS, distinct: bool = False) -> Scene:
    """A scene with all its choices from ``rng``; ``key`` is its name, ``objects`` the least and greatest number.

    ``distinct`` gives every object a colour and a shape of its own (five objects at most).
    """
    image_size, boxes = _placed_boxes(rng, objects)
    colors = rng.sample(list(COLORS), len(boxes) if distinct else rng.randint(2, 3))
    kinds = rng.sample(KINDS, len(boxes) if distinct else rng.randint(2, 3))
    shapes = []
    for number, (size, box) in enumerate(boxes):
        color = colors[number] if distinct else _recurring(rng, colors, number)
        kind = kinds[number] if distinct else _recurring(rng, kinds, number)
        paint = tuple(min(max(v + rng.randint(-_COLOR_JITTER, _COLOR_JITTER), 0), 255) for v in COLORS[color])
        shapes.append(Shape(kind, color, size, box, paint))
    background = tuple(rng.randint(222, 250) for _ in range(3))
    return Scene(key, image_size, background, tuple(sorted(shapes, key=lambda shape: shape.center)))


def _recurring(rng: random.Random, values: list[str], number: int) -> str:
    """One of ``values``; the first two objects take the first value, so that something always recurs."""
    return values[0] if number < 2 else rng.choice(values)


def _placed_boxes(rng: random.Random, objects: tuple[int, int]) -> tuple[tuple[int, int], list[tuple[str, Box]]]:
    """An image size and boxes that fit into it with room between them; starts again where the last finds no room."""
    while True:
        image_size = (rng.randint(*SIDES), rng.randint(*SIDES))
        placed: list[tuple[str, Box]] = []
        count = rng.randint(*objects)
        while len(placed) < count:
            size = rng.choice(("small", "small", "large"))
            box = _free_box(rng, image_size, size, [other for _, other in placed])
            if box is None:
                break
            placed.append((size, box))
        else:
            return image_size, placed


def _free_box(rng: random.Random, image_size: tuple[int, int], size: str, taken: list[Box]) -> Box | None:
    width, height = image_size
    for _ in range(_PLACING_TRIES):
        side = round(rng.uniform(*SIZES[size]) * min(image_size))
        x, y = rng.randint(1, width - side - 1), rng.randint(1, height - side - 1)
        if all(_apart((x, y, x + side, y + side), other) for other in taken):
            return (x, y, x + side, y + side)
    return None


def _apart(a: Box, b: Box) -> bool:
    return a[2] + _GAP <= b[0] or b[2] + _GAP <= a[0] or a[3] + _GAP <= b[1] or b[3] + _GAP <= a[1]


@lru_cache(maxsize=1024)
def _stencil(kind: str, width: int, height: int) -> Image.Image:
    """Coverage of each pixel by a shape that touches all four sides of its box."""
    w, h = width * _SUPERSAMPLING - 1, height * _SUPERSAMPLING - 1
    mask = Image.new("L", (w + 1, h + 1), 0)
    pen = ImageDraw.Draw(mask)
    if kind == "circle":
        pen.ellipse((0, 0, w, h), fill=255)
    else:
        pen.polygon([(x * w, y * h) for x, y in _OUTLINES[kind]], fill=255)
    return mask.reduce(_SUPERSAMPLING)


_NEAR, _FAR = 0.34, 0.66
_OUTLINES = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "cross": (
        *((_NEAR, 0), (_FAR, 0), (_FAR, _NEAR), (1, _NEAR), (1, _FAR), (_FAR, _FAR)),
        *((_FAR, 1), (_NEAR, 1), (_NEAR, _FAR), (0, _FAR), (0, _NEAR), (_NEAR, _NEAR)),
    ),
}


def clear_distance(scene: Scene) -> float:
    """Pixels by which two centres must differ before a relation between them is spoken of."""
    return math.ceil(0.08 * max(scene.image_size))
