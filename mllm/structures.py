"""The records that pass between packages: item, turn, target, frame, record. Standard library and PIL only.

Boxes are ``(x0, y0, x1, y1)`` and points ``(x, y)`` in pixels of the original image unless a name says ``normalized_``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from mllm.errors import DataError

Box = tuple[float, float, float, float]
Point = tuple[float, float]

IMAGE_PLACEHOLDER = "<image>"
BOXES_PLACEHOLDER = "<boxes>"
POINTS_PLACEHOLDER = "<points>"
ITEM_KEYS = {"image", "images", "target", "conversations", "truth", "meta"}
TURN_KEYS = {"from", "value", "boxes_seq", "points_seq"}
TARGET_KEYS = {"boxes", "points", "image_index", "points_image_index"}
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class Target:
    """What is to be found on the images of an item.

    ``image_index`` and ``points_image_index`` give the image of each box and each point; empty means the only image.
    """

    boxes: list[Box] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    image_index: list[int] = field(default_factory=list)
    points_image_index: list[int] = field(default_factory=list)


@dataclass
class Turn:
    """One utterance; ``boxes_seq`` holds one list of target indices for each ``<boxes>`` placeholder in ``text``."""

    role: str
    text: str
    boxes_seq: list[list[int]] = field(default_factory=list)
    points_seq: list[list[int]] = field(default_factory=list)


@dataclass
class Item:
    """An example as every data set returns it: images, target, conversation, and the truth evaluators score against."""

    images: list[Image.Image]
    conversations: list[Turn]
    target: Target = field(default_factory=Target)
    truth: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Item:
        """Build from the item dictionary (one ``image`` or a list ``images``); DataError on a wrong shape."""
        if "conversation" in row and "conversations" not in row:
            raise DataError("field 'conversation' must be called 'conversations'")
        _only_known(row, ITEM_KEYS, "item")
        images = row.get("images", row.get("image"))
        if images is None:
            images = []
        elif not isinstance(images, (list, tuple)):
            images = [images]
        turns = row.get("conversations")
        if not isinstance(turns, (list, tuple)) or not turns:
            raise DataError(f"'conversations' must be a list of at least one turn, got {turns!r:.80}")
        return cls(
            images=list(images),
            conversations=[_turn(turn, number) for number, turn in enumerate(turns)],
            target=_target(row.get("target") or {}),
            truth=dict(row.get("truth") or {}),
            meta=dict(row.get("meta") or {}),
        )


@dataclass(frozen=True)
class Frame:
    """Where the original image lies on the model's canvas: ``canvas = original * scale + offset``, in pixels.

    ``image_size`` is the original ``(width, height)``, ``canvas_size`` the canvas'. ``offset`` and ``scale`` are
    ``(x, y)``; coordinates in text are fractions of the canvas.
    """

    image_size: tuple[int, int]
    canvas_size: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)

    def normalize(self, coordinates: Sequence[float]) -> tuple[float, ...]:
        """Original pixels (x, y, x, y, …) → fractions of the canvas, clamped to [0, 1]."""
        return tuple(
            min(max((value * self.scale[i % 2] + self.offset[i % 2]) / self.canvas_size[i % 2], 0.0), 1.0)
            for i, value in enumerate(coordinates)
        )

    def denormalize(self, fractions: Sequence[float]) -> tuple[float, ...]:
        """Fractions of the canvas (x, y, x, y, …) → original pixels; not clamped to the image."""
        return tuple(
            (value * self.canvas_size[i % 2] - self.offset[i % 2]) / self.scale[i % 2]
            for i, value in enumerate(fractions)
        )

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Frame:
        """Read back what ``dataclasses.asdict`` wrote, through JSON."""
        return cls(*(tuple(row[name]) for name in ("image_size", "canvas_size", "offset", "scale")))


@dataclass
class Record:
    """One prediction as it stands in a predictions file: text and plain values, truth in original pixels.

    ``failure`` names why nothing could be generated; such a record scores 0.
    """

    index: int
    id: str
    pred: str
    target: str = ""
    truth: dict[str, Any] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Record:
        """Read back one line of a predictions file; unknown keys go to ``meta``."""
        missing = [key for key in ("index", "pred") if key not in row]
        if missing:
            raise DataError(f"a prediction needs the keys 'index' and 'pred', {missing[0]!r} is missing")
        known = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        known["frames"] = [Frame.from_dict(frame) for frame in known.get("frames") or []]
        known.setdefault("id", str(row["index"]))
        extra = {key: value for key, value in row.items() if key not in known}
        known["meta"] = {**(known.get("meta") or {}), **extra}
        return cls(**known)


def check_item(item: Item) -> None:
    """Raise DataError unless roles alternate, placeholders match their sequences, indices and boxes are in range."""
    for fault in item_faults(item):
        raise fault


def item_faults(item: Item) -> Iterator[DataError]:
    """All that ``check_item`` refuses, in the order of the item."""
    for number, turn in enumerate(item.conversations):
        expected = "human" if number % 2 == 0 else "gpt"
        if turn.role != expected:
            fault = f"from {turn.role!r}, expected {expected!r}: turns alternate from human"
            yield DataError(f"conversations[{number}]: {fault}", kind="turns")
        yield from _placeholder_faults(turn, number, item)
    yield from _image_faults(item)
    yield from _target_faults(item)


def _placeholder_faults(turn: Turn, number: int, item: Item) -> Iterator[DataError]:
    where, kind = f"conversations[{number}]", "placeholders"
    pairs = (
        (BOXES_PLACEHOLDER, "boxes_seq", turn.boxes_seq, item.target.boxes),
        (POINTS_PLACEHOLDER, "points_seq", turn.points_seq, item.target.points),
    )
    for placeholder, name, sequences, targets in pairs:
        count = turn.text.count(placeholder)
        if count != len(sequences):
            fault = f"{count} {placeholder} in {turn.text!r:.80} but {len(sequences)} lists in {name!r}"
            yield DataError(f"{where}: {fault}", kind=kind)
        for sequence in sequences:
            if not sequence:
                fault = f"an empty list; each {placeholder} needs at least one index"
                yield DataError(f"{where}.{name}: {fault}", kind=kind)
            wrong = [i for i in sequence if not 0 <= i < len(targets)]
            if wrong:
                fault = f"index {wrong[0]} but the target has {len(targets)} {placeholder[1:-1]}"
                yield DataError(f"{where}.{name}: {fault}", kind=kind)


def _image_faults(item: Item) -> Iterator[DataError]:
    mentioned = sum(turn.text.count(IMAGE_PLACEHOLDER) for turn in item.conversations if turn.role == "human")
    if mentioned and not item.images:
        fault = f"{mentioned} {IMAGE_PLACEHOLDER} in the human turns but the item has no image"
        yield DataError(fault, kind="placeholders")
    elif mentioned != len(item.images) and not (mentioned == 0 and len(item.images) == 1):
        fault = f"{len(item.images)} images but {mentioned} {IMAGE_PLACEHOLDER} in the human turns"
        yield DataError(fault, kind="placeholders")


def _target_faults(item: Item) -> Iterator[DataError]:
    target = item.target
    if (target.boxes or target.points) and not item.images:
        yield DataError("the target has boxes or points but the item has no image", kind="target")
        return
    for name, places, owners in (
        ("boxes", target.boxes, target.image_index),
        ("points", target.points, target.points_image_index),
    ):
        if len(owners) != len(places) and (owners or len(item.images) > 1):
            field_name = "image_index" if name == "boxes" else "points_image_index"
            fault = f"{len(owners)} entries for {len(places)} {name} on {len(item.images)} images"
            yield DataError(f"target.{field_name}: {fault}", kind="target")
            continue
        for position, place in enumerate(places):
            owner, where = owners[position] if owners else 0, f"target.{name}[{position}]"
            if 0 <= owner < len(item.images):
                yield from _place_faults(place, item.images[owner].size, where)
            else:
                yield DataError(f"{where}: image {owner} of {len(item.images)}", kind="target")


def _place_faults(place: Sequence[float], image_size: tuple[int, int], where: str) -> Iterator[DataError]:
    """The first fault of a box or point."""
    (width, height), shown = image_size, list(place)
    if len(place) == 4 and (place[2] < place[0] or place[3] < place[1]):
        fault = "right or bottom lies before left or top; expected (x0, y0, x1, y1), is it xywh?"
        yield DataError(f"{where} = {shown}: {fault}", kind="reversed box")
        return
    if len(place) == 4 and 0 < max(place) <= 1 and max(image_size) > 4:
        fault = f"looks normalised; expected pixels of the {width}x{height} image"
        yield DataError(f"{where} = {shown}: {fault}", kind="normalised box")
        return
    xs, ys = place[0::2], place[1::2]
    if min(xs) < -1 or min(ys) < -1 or max(xs) > width + 1 or max(ys) > height + 1:
        hint = " – is it xywh?" if len(place) == 4 else ""
        fault = f"outside the {width}x{height} image; expected pixels of the original image{hint}"
        yield DataError(f"{where} = {shown}: {fault}", kind="outside the image")


def _turn(row: Any, number: int) -> Turn:
    where = f"conversations[{number}]"
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a turn is an object with 'from' and 'value', got {row!r:.60}")
    _only_known(row, TURN_KEYS, where)
    for key in ("from", "value"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{where}: {key!r} must be text, got {row.get(key)!r:.60}")
        # JSON may hold one, no tokenizer takes it and no file in UTF-8 can.
        if half := _SURROGATE.search(row[key]):
            fault = f"the character {half.start()} of {key!r} is half of a surrogate pair ({half[0]!a})"
            raise DataError(f"{where}: {fault}; expected text that can be written as UTF-8")
    sequences = {}
    for key in ("boxes_seq", "points_seq"):
        value = row.get(key) or []
        if not all(isinstance(one, (list, tuple)) and all(type(i) is int for i in one) for one in value):
            raise DataError(f"{where}.{key}: expected a list of lists of indices, got {value!r:.80}")
        sequences[key] = [list(one) for one in value]
    return Turn(row["from"], row["value"], **sequences)


def _target(row: Mapping[str, Any]) -> Target:
    _only_known(row, TARGET_KEYS, "target")
    return Target(
        boxes=[_numbers(box, 4, f"target.boxes[{i}]") for i, box in enumerate(row.get("boxes") or [])],
        points=[_numbers(point, 2, f"target.points[{i}]") for i, point in enumerate(row.get("points") or [])],
        image_index=_indices(row, "image_index"),
        points_image_index=_indices(row, "points_image_index"),
    )


def _indices(row: Mapping[str, Any], key: str) -> list[int]:
    values = row.get(key) or []
    if not isinstance(values, (list, tuple)) or not all(type(value) is int for value in values):
        raise DataError(f"target.{key}: expected a list of indices, got {values!r:.80}", kind="target")
    return list(values)


def _numbers(values: Any, count: int, where: str) -> tuple[float, ...]:
    good = isinstance(values, (list, tuple)) and len(values) == count
    if not good or not all(isinstance(v, (int, float)) and abs(v) < 1e7 for v in values):
        raise DataError(f"{where}: expected {count} finite numbers in pixels, got {values!r:.80}")
    return tuple(float(v) for v in values)


def _only_known(row: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = [str(key) for key in row if key not in known]
    if unknown:
        raise DataError(f"{where}: unknown key {unknown[0]!r}; expected {', '.join(sorted(known))}")


def split_placeholders(text: str, *placeholders: str) -> list[str]:
    """Cut ``text`` at the placeholders and keep them as own pieces: ``"a <image> b"`` → ``["a ", "<image>", " b"]``."""
    pattern = "(" + "|".join(re.escape(one) for one in placeholders) + ")"
    return [piece for piece in re.split(pattern, text) if piece]
