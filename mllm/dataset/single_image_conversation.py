"""From any item data set to model-ready samples: check, canvas, coordinates as text, encoding."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from mllm.dataset.mixture import hint_of, item_of, same_source
from mllm.errors import DataError
from mllm.grounding.transforms import View
from mllm.structures import (
    BOXES_PLACEHOLDER,
    IMAGE_PLACEHOLDER,
    POINTS_PLACEHOLDER,
    Frame,
    Item,
    Record,
    Turn,
    check_item,
    split_placeholders,
)

Features = dict[str, Any]


@dataclass
class Sample:
    """One model-ready sample: what the model eats, the record to fill, and what is to be counted about it."""

    features: Features
    record: Record
    notes: list[tuple[str, str]] = field(default_factory=list)


class SingleImageConvDataset:
    """Wraps any item data set; indexed by ``index`` or by ``(epoch, index)``, as the samplers yield it.

    ``mode`` is ``"train"`` (labels on the answers) or ``"generate"`` (prompt only, record with the truth).
    ``on_error="replace"`` lets training take the next readable index of the same source instead of a failed one, with
    a note; ``"raise"`` stops. Generation never replaces: the record carries the failure and the input is neutral.
    """

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        *,
        mode: str = "train",
        seed: int = 0,
        on_error: str = "raise",
        name: str | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"{name or type(dataset).__name__}: the data set is empty; check its path and its filters")
        self.dataset = dataset
        self.processor = processor
        self.mode = mode
        self.seed = seed
        self.on_error = on_error
        self.name = name or type(dataset).__name__

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if self.mode == "generate":
            try:
                return self.sample(index, epoch)
            except DataError as error:
                return self._failed(index, str(error))
        return self.sample(index, epoch) if self.on_error == "raise" else self._replaced(index, epoch)

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters, images) of the item; (0, 1) where the data set gives no hint."""
        return hint_of(self.dataset, index)

    def item(self, index: int, epoch: int = 0) -> Item:
        """The checked item, every image mentioned once in the human turns."""
        place = ""
        try:
            raw = item_of(self.dataset, index, epoch)
            if not isinstance(raw, Item):
                place = (raw.get("meta") or {}).get("place", "")
            item = raw if isinstance(raw, Item) else Item.from_dict(raw)
            check_item(item)
        except DataError as error:
            where = f"{self.name}[{index}]" + (f" ({place})" if place else "")
            raise DataError(f"{where}: {error}") from error
        return item

    def check(self, count: int = 8) -> None:
        """Before a run: the trained tokens of the first samples decode to their answers and end marks, or DataError.

        Samples that cannot be made are left to ``on_error``.
        """
        for index in range(min(count, len(self))):
            try:
                item = self.item(index)
                mention_image(item, self.name)
                views = self._views(item, random.Random(0))
                turns = turns_with_coordinates(item, [view.frame for view in views], self.processor.formatter)
            except DataError:
                if self.on_error == "raise":
                    raise
                continue
            try:
                self.processor.check_supervision(turns, [view.image.size for view in views])
            except DataError as error:
                raise DataError(f"{self.name}[{index}]: {error}") from error

    def sample(self, index: int, epoch: int = 0) -> Sample:
        """The sample of ``index``; DataError that names data set and index if it cannot be made or trains nothing."""
        item = self.item(index, epoch)
        notes = mention_image(item, f"{self.name}[{index}]")
        rng = random.Random(f"{self.seed}-{epoch}-{index}-transforms")
        views = self._views(item, rng)
        turns = turns_with_coordinates(item, [view.frame for view in views], self.processor.formatter)
        generation = self.mode == "generate"
        try:
            features = self.processor.encode(turns, [view.image for view in views], generation=generation)
        except DataError as error:
            raise DataError(f"{self.name}[{index}]: {error}") from error
        if not generation and not features["answer_tokens"]:
            fault = "the answers are empty or cut off by conversation.max_length"
            raise DataError(f"{self.name}[{index}]: no token would be trained: {fault}")
        if features["truncated"]:
            notes.append(("truncated", f"{self.name}[{index}]"))
        return Sample(features, self._record(index, item, turns, [view.frame for view in views]), notes)

    def _views(self, item: Item, rng: random.Random) -> list[View]:
        views = []
        for number, image in enumerate(item.images):
            owners, point_owners = item.target.image_index, item.target.points_image_index
            boxes = [box for i, box in enumerate(item.target.boxes) if (owners[i] if owners else 0) == number]
            points = [p for i, p in enumerate(item.target.points) if (point_owners[i] if point_owners else 0) == number]
            view = View.of(image, boxes, points)
            for transform in self.processor.transforms:
                view = transform(view, rng)
            views.append(view)
        return views

    def _record(self, index: int, item: Item, turns: list[Turn], frames: list[Frame]) -> Record:
        answer = item.conversations[-1] if item.conversations[-1].role == "gpt" else None
        truth = {**_truth_of_answer(item, answer), **item.truth}
        meta = {**item.meta, "prompt": turns[-2].text if answer and len(turns) > 1 else turns[-1].text}
        identity = str(item.meta.get("id", index))
        return Record(index, identity, "", turns[-1].text if answer else "", truth, frames, meta)

    def _failed(self, index: int, failure: str) -> Sample:
        turns = [Turn("human", IMAGE_PLACEHOLDER)]
        features = self.processor.encode(turns, [self._neutral_image()], generation=True)
        return Sample(features, Record(index, str(index), "", failure=failure), [("failed", failure)])

    def _neutral_image(self) -> Image.Image:
        view = View.of(Image.new("RGB", (32, 32), (255, 255, 255)), [], [])
        rng = random.Random(0)
        for transform in self.processor.transforms:
            view = transform(view, rng)
        return view.image

    def _replaced(self, index: int, epoch: int) -> Sample:
        notes: list[tuple[str, str]] = []
        candidate = index
        for step in range(1, len(self) + 1):
            try:
                sample = self.sample(candidate, epoch)
            except DataError as error:
                notes.append(("replaced", str(error)))
                candidate = same_source(self.dataset, index, step)
                if candidate == index:
                    break
                continue
            sample.notes = notes + sample.notes
            return sample
        raise DataError(
            f"{self.name}: none of the {len(notes)} rows of the source of row {index} can be read; the first fault: "
            f"{notes[0][1]}"
        )


def turns_with_coordinates(item: Item, frames: list[Frame], formatter: Any) -> list[Turn]:
    """The conversation with each ``<boxes>`` and ``<points>`` replaced by text in the canvas's fractions."""
    for frame in frames:
        formatter.check_canvas(frame.canvas_size)
    return [
        Turn(turn.role, _fill(turn, item, frames, formatter)) if turn.boxes_seq or turn.points_seq else turn
        for turn in item.conversations
    ]


def _fill(turn: Turn, item: Item, frames: list[Frame], formatter: Any) -> str:
    target = item.target
    boxes, points = iter(turn.boxes_seq), iter(turn.points_seq)
    pieces = []
    for piece in split_placeholders(turn.text, BOXES_PLACEHOLDER, POINTS_PLACEHOLDER):
        if piece == BOXES_PLACEHOLDER:
            owners = target.image_index
            chosen = [frames[owners[i] if owners else 0].normalize(target.boxes[i]) for i in next(boxes)]
            piece = formatter.format_boxes(chosen)
        elif piece == POINTS_PLACEHOLDER:
            owners = target.points_image_index
            chosen = [frames[owners[i] if owners else 0].normalize(target.points[i]) for i in next(points)]
            piece = formatter.format_points(chosen)
        pieces.append(piece)
    return "".join(pieces)


def mention_image(item: Item, where: str) -> list[tuple[str, str]]:
    """Put the one image that no turn mentions in front of the first question; a note that names ``where`` if so."""
    mentioned = any(IMAGE_PLACEHOLDER in turn.text for turn in item.conversations if turn.role == "human")
    if mentioned or not item.images:
        return []
    first = item.conversations[0]
    item.conversations[0] = Turn(first.role, f"{IMAGE_PLACEHOLDER}\n{first.text}", first.boxes_seq, first.points_seq)
    return [("image put in front", where)]


def _truth_of_answer(item: Item, answer: Turn | None) -> Mapping[str, Any]:
    if answer is None:
        return {}
    truth: dict[str, Any] = {"references": [answer.text]}
    if answer.boxes_seq:
        truth["boxes"] = [list(item.target.boxes[i]) for sequence in answer.boxes_seq for i in sequence]
    if answer.points_seq:
        truth["points"] = [list(item.target.points[i]) for sequence in answer.points_seq for i in sequence]
    return truth
