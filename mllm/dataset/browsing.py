"""Samples as people look at them: the model's image, the text read back from the ids, the places read out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from PIL import Image

from mllm.conversation import Span, read_back
from mllm.dataset.mixture import Mixture, Source, item_of, sources_of
from mllm.dataset.single_image_conversation import Sample, SingleImageConvDataset
from mllm.errors import DataError
from mllm.structures import BOXES_PLACEHOLDER, POINTS_PLACEHOLDER, Frame, Item, split_placeholders

FAILS = "fails"
DISAGREES = "boxes in the text are not those of the item"
UNREADABLE = "unreadable coordinates"
NOTES = {
    "image put in front": "no turn mentions the image",
    "truncated": "the text is cut at conversation.max_length",
}


@dataclass(frozen=True)
class Place:
    """A box or a point as the text has it: ``fractions`` of the canvas of image number ``image``, from 0.

    The same place on the same image has the same ``number`` wherever it is named. ``start`` and ``end`` bound the
    group of coordinates that it stands in, in the text of all spans; ``answer`` says that an answer holds it.
    """

    number: int
    fractions: tuple[float, ...]
    image: int
    start: int
    end: int
    answer: bool


@dataclass
class Shown:
    """A row as the model gets it; ``problems`` maps what is the matter with it to a sentence.

    ``spans`` are those of ``read_back``, with kind "expected" for the answer that a generation prompt asks for, and
    "raw" for the turns of a row that cannot be made into a sample (its images are then the original ones).
    """

    index: int
    source: str
    where: str
    images: list[Image.Image] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of all spans."""
        return "".join(span.text for span in self.spans)

    def tokens(self, *kinds: str) -> int:
        """How many ids the spans of these kinds stand for; of all without any."""
        return sum(span.tokens for span in self.spans if not kinds or span.kind in kinds)


class Browser:
    """Looks into ``samples``; ``sources`` maps the name of each data set at the bottom, made unique, to its source."""

    def __init__(self, samples: SingleImageConvDataset) -> None:
        self.samples = samples
        self.sources = named_sources(list(sources_of(samples.dataset)))
        self._names = {id(source.dataset): name for name, source in self.sources.items()}

    def choose(self, count: int, start: int | None = None) -> list[int]:
        """``count`` indices from ``start`` on; without it, as many of each source, spread over the first epoch."""
        total = len(self.samples)
        if start is not None:
            return list(range(start, min(start + count, total)))
        candidates = min(total, 64 * count)
        groups: dict[str, list[int]] = {}
        for number in range(candidates):
            index = number * total // candidates
            groups.setdefault(self.locate(index)[0], []).append(index)
        return sorted(index for indices in _even(list(groups.values()), count) for index in indices)

    def locate(self, index: int) -> tuple[str, int]:
        """The source of an index in the first epoch, and the row in it."""
        dataset, epoch = self.samples.dataset, 0
        while isinstance(dataset, Mixture):
            part, index, epoch = dataset.locate(index, epoch)
            dataset = dataset.datasets[part]
        return self._names[id(dataset)], index

    def show(self, index: int) -> Shown:
        """The sample of ``index`` in the first epoch, or its error with what can be seen of the row all the same."""
        source, row = self.locate(index)
        shown = Shown(index, source, f"{source}[{row}]")
        try:
            sample = self.samples.sample(index)
            item = self.samples.item(index)
        except DataError as error:
            shown.problems[FAILS] = str(error)
            self._show_raw(index, shown)
            return shown
        shown.where = item.meta.get("place", shown.where)
        shown.problems.update((kind, NOTES.get(kind, where)) for kind, where in sample.notes)
        self._show_sample(sample, shown)
        self._show_places(sample.record.frames, item, shown)
        return shown

    def _show_sample(self, sample: Sample, shown: Shown) -> None:
        processor, features = self.samples.processor, sample.features
        pixels = features["pixel_values"]
        shown.images = [processor.picture(one) for one in pixels] if pixels is not None else []
        shown.spans = read_back(
            features["input_ids"],
            features["labels"],
            processor.tokenizer,
            image_token_id=processor.image_token_id,
            image_tokens=processor.image["tokens"],
        )
        if self.samples.mode == "generate" and sample.record.target:
            shown.spans.append(Span("expected", sample.record.target, 0))

    def _show_places(self, frames: Sequence[Frame], item: Item, shown: Shown) -> None:
        formatter = self.samples.processor.formatter
        expected = list(_places_of(item, frames))
        text, answers, matches = shown.text, _answer_ranges(shown.spans), True
        numbers: dict[tuple[int, tuple[float, ...]], int] = {}
        for group in formatter.find(text):
            if group.places is None:
                shown.problems[UNREADABLE] = f"{text[group.start : group.end]!r} cannot be read as boxes or points"
            for fractions in group.places or ():
                position = len(shown.places)
                image, wanted = expected[position] if position < len(expected) else (0, ())
                number = numbers.setdefault((image, fractions), len(numbers) + 1)
                matches = matches and _alike(fractions, wanted, formatter.tolerance)
                answer = any(start <= group.start < end for start, end in answers)
                shown.places.append(Place(number, fractions, image, group.start, group.end, answer))
        count = len(shown.places)
        if not matches or (count != len(expected) and "truncated" not in shown.problems):
            detail = "" if matches else ", and not all at the same place"
            shown.problems[DISAGREES] = f"{count} boxes and points in the text, {len(expected)} in the item{detail}"

    def _show_raw(self, index: int, shown: Shown) -> None:
        try:
            raw = item_of(self.samples.dataset, index, 0)
            item = raw if isinstance(raw, Item) else Item.from_dict(raw)
        except DataError:
            return
        shown.where = item.meta.get("place", shown.where)
        shown.images = [image for image in item.images if isinstance(image, Image.Image)]
        shown.spans = [Span("raw", "\n".join(f"{turn.role}: {turn.text}" for turn in item.conversations), 0)]


def _places_of(item: Item, frames: Sequence[Frame]) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Image and fractions of every place that the turns name, in the order of their placeholders."""
    target = item.target
    for turn in item.conversations:
        boxes, points = iter(turn.boxes_seq), iter(turn.points_seq)
        for piece in split_placeholders(turn.text, BOXES_PLACEHOLDER, POINTS_PLACEHOLDER):
            places, owners, chosen = target.boxes, target.image_index, []
            if piece == BOXES_PLACEHOLDER:
                chosen = next(boxes)
            elif piece == POINTS_PLACEHOLDER:
                places, owners, chosen = target.points, target.points_image_index, next(points)
            for i in chosen:
                owner = owners[i] if owners else 0
                yield owner, frames[owner].normalize(places[i])


def _answer_ranges(spans: Sequence[Span]) -> list[tuple[int, int]]:
    ranges, end = [], 0
    for span in spans:
        start, end = end, end + len(span.text)
        if span.kind in ("trained", "expected"):
            ranges.append((start, end))
    return ranges


def _alike(found: Sequence[float], wanted: Sequence[float], tolerance: float) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True))


def named_sources(sources: Sequence[Source]) -> dict[str, Source]:
    """Sources by name; those of the same name also by their annotation file, and by number where that is the same."""
    names = [source.name for source in sources]
    files = [getattr(source.dataset, "files", None) or [""] for source in sources]
    repeated = Counter(names)
    told = [
        f"{name} {PurePath(str(file[0])).name}".strip() if repeated[name] > 1 else name
        for name, file in zip(names, files, strict=True)
    ]
    repeated, seen = Counter(told), Counter()
    found = {}
    for name, source in zip(told, sources, strict=True):
        seen[name] += 1
        found[f"{name} #{seen[name]}" if repeated[name] > 1 else name] = source
    return found


def _even(groups: Sequence[Sequence[int]], count: int) -> Iterator[list[int]]:
    """``count`` of all, as many of each group as it has and the others leave, evenly spread over the group."""
    quotas = [0] * len(groups)
    while sum(quotas) < min(count, sum(map(len, groups))):
        open_groups = [i for i, group in enumerate(groups) if quotas[i] < len(group)]
        least = min(open_groups, key=lambda i: quotas[i])
        quotas[least] += 1
    for group, quota in zip(groups, quotas, strict=True):
        yield [group[number * len(group) // quota] for number in range(quota)]
