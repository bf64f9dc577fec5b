"""Coordinates as Qwen-VL's JSON: ``{"bbox_2d": [x0, y0, x1, y1]}`` and ``{"point_2d": [x, y]}`` in whole numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from mllm.errors import ConfigError
from mllm.grounding.formatter import Formatter, Group, read_rows
from mllm.registry import FORMATTERS

KEYS = {"boxes": "bbox_2d", "points": "point_2d"}


@FORMATTERS.register_module()
class Qwen3Formatter(Formatter):
    """``{"bbox_2d": [100, 200, 300, 400]}`` in thousandths of the canvas, several as a JSON list (Qwen3-VL's cookbook).

    ``side`` is the number that stands for the canvas's far edge. Other keys of an object (``"label"``) are read over;
    objects that only white space and commas part are one group.
    """

    _object = re.compile(r"\{[^{}]*(?:\}|\Z)")
    _entry = re.compile(r"""["']?\b(bbox|point)(?:_2d)?["']?\s*:\s*\[([^\[\]{}]*)(\]|\Z)""")
    _between = re.compile(r"[\s,]*")
    _closing = re.compile(r"\s*(?:\]|\Z)")

    def __init__(self, side: int = 1000) -> None:
        if side < 2:
            raise ConfigError(f"{type(self).__name__}: side={side!r}; expected at least 2")
        self.side = side

    @property
    def tolerance(self) -> float:
        """Largest change of a coordinate by writing and reading it."""
        return 0.5 / self.side + 1e-9

    def _join(self, kind: str, texts: list[str]) -> str:
        objects = [f'{{"{KEYS[kind]}": [{text}]}}' for text in texts]
        return objects[0] if len(objects) == 1 else "[" + ", ".join(objects) + "]"

    def _write(self, place: Sequence[float]) -> str:
        return ", ".join(str(round(value * self.side)) for value in place)

    def _scan(self, text: str) -> Iterator[Group]:
        objects = [(match, self._entry.findall(match[0])) for match in self._object.finditer(text)]
        groups = [self._read(match, entries) for match, entries in objects if entries]
        end = 0
        for _, members in groupby(self._numbered(groups, text), key=lambda pair: pair[0]):
            run = [group for _, group in members]
            start, stop = self._with_brackets(text, end, run[0].start, run[-1].end)
            places = None if run[0].places is None else [group.places[0] for group in run]
            end = stop
            yield Group(start, stop, run[0].kind, places)

    def _read(self, match: re.Match[str], entries: list[tuple[str, str, str]]) -> Group:
        """The one place of an object; unreadable where it names several or is cut off within the numbers."""
        name, numbers, closed = entries[0]
        wanted = {"bbox": "boxes", "point": "points"}[name]
        kind, places = read_rows([numbers.split(",")], float(self.side))
        readable = len(entries) == 1 and closed and kind == wanted
        return Group(match.start(), match.end(), wanted, places if readable else None)

    def _numbered(self, groups: Sequence[Group], text: str) -> Iterator[tuple[int, Group]]:
        """Number the runs of objects of one kind; an unreadable object is a run of its own."""
        number = 0
        for i, group in enumerate(groups):
            last = groups[i - 1] if i else group
            near = self._between.fullmatch(text, last.end, group.start) if i else True
            number += not near or last.kind != group.kind or last.places is None or group.places is None
            yield number, group

    def _with_brackets(self, text: str, floor: int, start: int, end: int) -> tuple[int, int]:
        """The stretch with the brackets of the list that it fills; ``floor`` is where the group before it ended."""
        before = text[floor:start].rstrip()
        closing = self._closing.match(text, end)
        if before.endswith("[") and closing:
            return floor + len(before) - 1, closing.end()
        return start, end


@FORMATTERS.register_module()
class Qwen25Formatter(Qwen3Formatter):
    """The same in pixels of the image as Qwen2.5-VL sees it, which must be a square of ``side``.

    A formatter knows fractions of a canvas alone, not its size. So it takes one size: end ``transforms`` with
    ``Resize(side)``, behind ``SquareCanvas`` where the aspect ratio is to be kept. ``side`` must be a multiple of 28,
    or the model resizes the image again.
    """

    def __init__(self, side: int = 980) -> None:
        super().__init__(side)

    def check_canvas(self, canvas_size: tuple[int, int]) -> None:
        """ConfigError unless the canvas is a square of ``side``: pixels of another would be wrong numbers."""
        if tuple(canvas_size) != (self.side, self.side):
            raise ConfigError(
                f"conversation.formatter: Qwen25Formatter(side={self.side}) writes pixels, but the canvas is "
                f"{canvas_size[0]}x{canvas_size[1]}: end conversation.transforms with "
                f"dict(type='Resize', size={self.side})"
            )
