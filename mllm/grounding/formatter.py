"""Coordinates ↔ text: a codec for boxes and points given as fractions of the canvas, in [0, 1].

Writing is strict and has one form. Reading takes what a model may write: it never raises, says which groups it could
not read, and needs time linear in the text. A value beyond the range by at most ``EXCESS`` is a rounding matter and is
clamped; one further out makes its group unreadable. Inverted boxes are given as read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any, ClassVar

from mllm.errors import ConfigError
from mllm.registry import FORMATTERS

EXCESS = 0.005
COUNTS = {4: "boxes", 2: "points"}
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_NUMBER = re.compile(NUMBER)
_NUMBER_LIKE = re.compile(r"[+-]?(?:\d[\d.]*|\.[\d.]+)(?:[eE][+-]?\d*)?|[+-]?(?:nan|inf|infinity)|", re.IGNORECASE)
_BRACKETED = re.compile(r"[\[(]([^\[\]()]*)[\])]")

Place = tuple[float, ...]


@dataclass(frozen=True)
class Parsed:
    """What was read: one group for each placeholder, and the texts that look like coordinates but could not be read."""

    groups: list[list[Place]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """A stretch of text with coordinates; ``kind`` is "boxes", "points" or "any", ``places`` None if unreadable."""

    start: int
    end: int
    kind: str
    places: list[Place] | None


class Formatter:
    """Base of the codecs; a new one gives ``_join``, ``_write``, ``_scan`` and a ``tolerance``."""

    tolerance: float

    def format_boxes(self, boxes: Sequence[Sequence[float]]) -> str:
        """Text of the boxes of one placeholder; ValueError for none or for values outside [0, 1]."""
        return self._format("boxes", boxes, 4)

    def format_points(self, points: Sequence[Sequence[float]]) -> str:
        """Text of the points of one placeholder; ValueError for none or for values outside [0, 1]."""
        return self._format("points", points, 2)

    def parse_boxes(self, text: str) -> Parsed:
        """All groups of boxes in ``text``, in order; points and other text are passed over."""
        return self._parse(text, "boxes")

    def parse_points(self, text: str) -> Parsed:
        """All groups of points in ``text``, in order; boxes and other text are passed over."""
        return self._parse(text, "points")

    def find(self, text: str) -> list[Group]:
        """Every stretch of ``text`` with coordinates, in order, the unreadable ones included."""
        return list(self._scan(text))

    def strip(self, text: str) -> str:
        """``text`` without its coordinates, the unreadable ones included, and without the spaces they leave."""
        kept, position = "", 0
        for group in self._scan(text):
            kept = _joined(kept, text[position : group.start])
            position = group.end
        return _joined(kept, text[position:]).strip()

    def tokens(self) -> list[str]:
        """Tokens that the tokenizer needs; added as ordinary ones, so that decoding keeps them."""
        return []

    def check_canvas(self, canvas_size: tuple[int, int]) -> None:
        """ConfigError where coordinates on a canvas of this (width, height) cannot be written; fractions always can."""

    @property
    def signature(self) -> str:
        """A short text that differs where the written form differs."""
        arguments = ",".join(f"{key}={value}" for key, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"

    def to_config(self) -> dict[str, Any]:
        """What ``FORMATTERS.build`` turns into an equal formatter."""
        return {"type": type(self).__name__, **vars(self)}

    def _format(self, kind: str, places: Sequence[Sequence[float]], count: int) -> str:
        if not places:
            raise ValueError(f"no {kind} to format")
        for place in places:
            if len(place) != count or not all(0 <= value <= 1 for value in place):
                raise ValueError(f"{kind}: expected {count} fractions of the canvas in [0, 1], got {list(place)}")
        return self._join(kind, [self._write(place) for place in places])

    def _parse(self, text: str, kind: str) -> Parsed:
        groups = [group for group in self._scan(text) if group.kind in (kind, "any")]
        unreadable = [text[group.start : group.end] for group in groups if group.places is None]
        return Parsed([group.places for group in groups if group.places is not None], unreadable)

    def _join(self, kind: str, texts: list[str]) -> str:
        raise NotImplementedError

    def _write(self, place: Sequence[float]) -> str:
        raise NotImplementedError

    def _scan(self, text: str) -> Iterator[Group]:
        raise NotImplementedError


@FORMATTERS.register_module()
class PlainFormatter(Formatter):
    """``[0.100,0.200,0.300,0.400]``, several joined by ``;`` (Shikra, arXiv 2306.15195); both brackets are read."""

    pairs: ClassVar[dict[str, str]] = {"square": "[]", "round": "()"}

    def __init__(self, brackets: str = "square", decimals: int = 3) -> None:
        if brackets not in self.pairs:
            raise ConfigError(f"PlainFormatter: brackets={brackets!r}; expected 'square' or 'round'")
        if not 1 <= decimals <= 9:
            raise ConfigError(f"PlainFormatter: decimals={decimals!r}; expected 1 to 9")
        self.brackets = brackets
        self.decimals = decimals

    @property
    def tolerance(self) -> float:
        """Largest change of a coordinate by writing and reading it."""
        return 0.5 * 10**-self.decimals + 1e-9

    def _join(self, kind: str, texts: list[str]) -> str:
        left, right = self.pairs[self.brackets]
        return left + ";".join(texts) + right

    def _write(self, place: Sequence[float]) -> str:
        return ",".join(f"{value + 0.0:.{self.decimals}f}" for value in place)

    def _scan(self, text: str) -> Iterator[Group]:
        for match in _BRACKETED.finditer(text):
            rows = [part.split(",") for part in match[1].split(";")]
            if _looks_like_coordinates(rows):
                kind, places = read_rows(rows, 1.0)
                yield Group(match.start(), match.end(), kind, places)


@FORMATTERS.register_module()
class BinTokenFormatter(Formatter):
    """``<b_st><bin_100> <bin_200> <bin_300> <bin_400><b_ed>``: coordinates as tokens, bin = round(v · (bins − 1))."""

    _runs = re.compile(r"<([bp])_st>((?:\s*(?:<bin_\d+>|<[bp]_sep>))*)(?:\s*(<[bp]_ed>))?|<bin_\d+>|<[bp]_(?:ed|sep)>")
    _place = re.compile(r"(?:\s*<bin_[0-9]{1,9}>)+\s*")
    _bin = re.compile(r"<bin_([0-9]+)>")

    def __init__(self, bins: int = 1001) -> None:
        if bins < 2:
            raise ConfigError(f"BinTokenFormatter: bins={bins!r}; expected at least 2")
        self.bins = bins

    @property
    def tolerance(self) -> float:
        """Largest change of a coordinate by writing and reading it."""
        return 0.5 / (self.bins - 1) + 1e-9

    def tokens(self) -> list[str]:
        """The six marks and one token for each bin."""
        marks = [f"<{kind}_{mark}>" for kind in "bp" for mark in ("st", "ed", "sep")]
        return marks + [f"<bin_{number}>" for number in range(self.bins)]

    def _join(self, kind: str, texts: list[str]) -> str:
        return f"<{kind[0]}_st>" + f"<{kind[0]}_sep>".join(texts) + f"<{kind[0]}_ed>"

    def _write(self, place: Sequence[float]) -> str:
        return " ".join(f"<bin_{round(value * (self.bins - 1))}>" for value in place)

    def _scan(self, text: str) -> Iterator[Group]:
        for match in self._runs.finditer(text):
            letter = match[1]
            kind = {"b": "boxes", "p": "points"}.get(letter, "any")
            closed = letter is not None and match[3] == f"<{letter}_ed>"
            yield Group(match.start(), match.end(), kind, self._read(match[2], letter) if closed else None)

    def _read(self, content: str, letter: str) -> list[Place] | None:
        places = []
        for part in content.split(f"<{letter}_sep>"):
            numbers = [int(one) for one in self._bin.findall(part)] if self._place.fullmatch(part) else []
            if len(numbers) != (4 if letter == "b" else 2) or max(numbers) >= self.bins:
                return None
            places.append(tuple(number / (self.bins - 1) for number in numbers))
        return places


@FORMATTERS.register_module()
class ThousandFormatter(Formatter):
    """``(100,200),(300,400)`` in 0–1000, several boxes space-joined; ``(100,200)`` alone is a point (Qwen-VL)."""

    tolerance = 0.0005 + 1e-9
    _link = re.compile(r"\s*,\s*")

    def _join(self, kind: str, texts: list[str]) -> str:
        return " ".join(texts)

    def _write(self, place: Sequence[float]) -> str:
        numbers = [round(value * 1000) for value in place]
        return ",".join(f"({x},{y})" for x, y in zip(numbers[0::2], numbers[1::2], strict=True))

    def _scan(self, text: str) -> Iterator[Group]:
        groups = [self._read_chain(linked) for linked in self._chains(text)]
        for (kind, _), members in groupby(_numbered(groups, text), key=lambda pair: (pair[1].kind, pair[0])):
            run = [group for _, group in members]
            places = None if run[0].places is None else [group.places[0] for group in run]
            yield Group(run[0].start, run[-1].end, kind, places)

    def _chains(self, text: str) -> Iterator[list[re.Match[str]]]:
        """Pairs of numbers in round brackets, those joined by a comma together."""
        linked: list[re.Match[str]] = []
        for match in _BRACKETED.finditer(text):
            rows = [part.split(",") for part in match[1].split(";")]
            if match[0][0] != "(" or not _looks_like_coordinates(rows, whole=True):
                continue
            if linked and not self._link.fullmatch(text, linked[-1].end(), match.start()):
                yield linked
                linked = []
            linked.append(match)
        if linked:
            yield linked

    @staticmethod
    def _read_chain(linked: list[re.Match[str]]) -> Group:
        kind, places = "any", None
        pairs = [match[1].split(",") for match in linked]
        if len(pairs) <= 2 and all(len(pair) == 2 for pair in pairs):
            kind, places = read_rows([list(chain.from_iterable(pairs))], 1000.0)
        return Group(linked[0].start(), linked[-1].end(), kind, places)


def build_formatter(spec: str | Mapping[str, Any] | Formatter) -> Formatter:
    """A formatter from a registered name, ``dict(type=..., ...)``, or itself."""
    if isinstance(spec, Formatter):
        return spec
    return FORMATTERS.build({"type": spec} if isinstance(spec, str) else spec)


def _joined(before: str, after: str) -> str:
    """Close the gap that removed coordinates left: one space, none before punctuation."""
    before = before.rstrip()
    apart = before and after and not re.match(r"[\s.,;:!?)\]]", after)
    return before + (" " if apart else "") + after


def _numbered(groups: list[Group], text: str) -> Iterator[tuple[int, Group]]:
    """Number the runs of groups that only white space parts; an unreadable group is a run of its own."""
    number = 0
    for i, group in enumerate(groups):
        last = groups[i - 1] if i else group
        apart = i and text[last.end : group.start].strip()
        number += bool(apart or last.places is None or group.places is None)
        yield number, group


def _looks_like_coordinates(rows: list[list[str]], *, whole: bool = False) -> bool:
    """Numbers alone, at least two, and four, or one with a point, or 0 and 1: ``[1]`` and ``[3,4]`` are citations.

    ``whole`` says that coordinates are whole numbers: then any two will do.
    """
    values = [value.strip() for row in rows for value in row]
    if len(values) < 2 or not any(values) or not all(_NUMBER_LIKE.fullmatch(value) for value in values):
        return False
    if whole and len(values) == 2:
        return True
    return len(values) >= 4 or any(re.search(r"[.a-zA-Z]", value) for value in values) or set(values) <= {"0", "1"}


def read_rows(rows: list[list[str]], top: float) -> tuple[str, list[Place] | None]:
    """The kind and the places as fractions of ``top``; ("any", None) if one of them cannot be read."""
    count = len(rows[0])
    kind = COUNTS.get(count, "any")
    if kind == "any" or any(len(row) != count for row in rows):
        return "any", None
    places = []
    for row in rows:
        if not all(_NUMBER.fullmatch(value.strip()) for value in row):
            return kind, None
        fractions = [float(value) / top for value in row]
        if not all(-EXCESS <= value <= 1 + EXCESS for value in fractions):
            return kind, None
        places.append(tuple(min(max(value, 0.0), 1.0) for value in fractions))
    return kind, places
