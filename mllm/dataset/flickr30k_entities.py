"""The files of Flickr30k Entities (arXiv 1505.04870, github BryanPlummer/flickr30k_entities), read image by image.

``Sentences/<id>.txt`` holds five lines with ``[/EN#<chain>/<type>… words]``, ``Annotations/<id>.xml`` the objects: each
has the names of one or more chains, and boxes counted from 1, or ``nobndbox`` or ``scene``. Chain 0 ("notvisual")
never has a box. ``UNRELATED_CAPTIONS`` numbers, from 1, sentences that do not describe their image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mllm.dataset.grounded_sentence import GroundedSentence, Phrase
from mllm.dataset.rows import Row
from mllm.errors import DataError
from mllm.structures import Box
from mllm.utils.storage import join, read_bytes, read_text, resolve_path

SENTENCES_PER_IMAGE = 5
_PHRASE = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)*) ([^\]]*)\]")
_NOT_VISUAL = "0"


class EntitiesFolder(Sequence):
    """A row a sentence, or a row an image; files of an image are opened when one of its rows becomes an item."""

    def __init__(self, root: str, split: str, per: str, drop_unrelated: bool) -> None:
        self.root = resolve_path(root)
        self.per = per
        self.files = [join(self.root, f"{one}.txt") for one in split.split("+")]
        self.ids = [name for path in self.files for name in read_text(path).split()]
        self.dropped: set[tuple[str, int]] = set()
        if drop_unrelated:
            self.files.append(join(self.root, "UNRELATED_CAPTIONS"))
            self.dropped = set(_unrelated(self.files[-1]))
        count = SENTENCES_PER_IMAGE if per == "caption" else 1
        self.positions: Sequence[int] = range(len(self.ids) * count)
        if self.dropped and per == "caption":
            self.positions = [i for i in self.positions if (self.ids[i // count], i % count) not in self.dropped]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Row:
        position = self.positions[index]
        if self.per == "image":
            return Row({"image_id": self.ids[position]}, self.sentences_path(self.ids[position]))
        image, number = divmod(position, SENTENCES_PER_IMAGE)
        image_id = self.ids[image]
        return Row({"image_id": image_id, "sentence": number}, f"{self.sentences_path(image_id)}:{number + 1}")

    def sentences_path(self, image_id: str) -> str:
        """The file of the image's sentences."""
        return join(self.root, "Sentences", f"{image_id}.txt")

    def sentence_lines(self, image_id: str) -> list[str]:
        """The image's five sentences as they stand in the file."""
        path = self.sentences_path(image_id)
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        if len(lines) != SENTENCES_PER_IMAGE:
            raise DataError(f"{path}: {len(lines)} sentences, expected {SENTENCES_PER_IMAGE}")
        return lines

    def read(self, row: Row) -> tuple[dict[int, GroundedSentence], list[int]]:
        """The image's sentences by number, unrelated ones left out, and the numbers that the row may show."""
        image_id = row["image_id"]
        boxes, chains = read_boxes(join(self.root, "Annotations", f"{image_id}.xml"))
        path = self.sentences_path(image_id)
        sentences = {
            number: parse_sentence(line, f"{path}:{number + 1}", boxes, chains)
            for number, line in enumerate(self.sentence_lines(image_id))
            if (image_id, number) not in self.dropped
        }
        if not sentences:
            raise DataError(
                f"{path}: every sentence is listed in UNRELATED_CAPTIONS; leave {image_id} out of the split"
            )
        return sentences, [row["sentence"]] if "sentence" in row else list(sentences)


def parse_sentence(line: str, place: str, boxes: Sequence[Box], chains: dict[str, list[int]]) -> GroundedSentence:
    """The sentence of one line; only boxes that its phrases use are kept, in the order of first use."""
    pieces: list[str | Phrase] = []
    used: dict[int, int] = {}
    end = 0
    for match in _PHRASE.finditer(line):
        chain, types, words = match.groups()
        positions = [] if chain == _NOT_VISUAL else chains.get(chain, [])
        own = tuple(used.setdefault(position, len(used)) for position in positions)
        pieces += [line[end : match.start()], Phrase(words.strip(), own, chain, tuple(types.split("/")[1:]))]
        end = match.end()
    pieces.append(line[end:])
    if any("[/EN#" in (piece if isinstance(piece, str) else piece.text) for piece in pieces):
        raise DataError(f"{place}: a phrase is not [/EN#<chain>/<type> words]: {line!r:.120}")
    return GroundedSentence(tuple(piece for piece in pieces if piece), tuple(boxes[position] for position in used))


def read_boxes(path: str) -> tuple[list[Box], dict[str, list[int]]]:
    """The boxes of an annotation file, counted from 0, and for each chain the positions of its boxes.

    DataError if the XML is broken or declares a document type: those can grow without bound.
    """
    parser = ElementTree.XMLParser(target=_PlainTree(path))
    try:
        root = ElementTree.fromstring(read_bytes(path), parser)
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: broken XML: {error}") from error
    boxes: list[Box] = []
    chains: dict[str, list[int]] = {}
    for number, found in enumerate(root.iter("object")):
        place = f"{path}:object[{number}]"
        own = [_box(one, place) for one in found.findall("bndbox")]
        if not own and found.find("nobndbox") is None and found.find("scene") is None:
            raise DataError(f"{place}: expected bndbox, nobndbox or scene")
        for name in found.findall("name"):
            chains.setdefault((name.text or "").strip(), []).extend(range(len(boxes), len(boxes) + len(own)))
        boxes += own
    return boxes, chains


class _PlainTree(ElementTree.TreeBuilder):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError(f"{self.path}: the XML declares a document type ({name}), which annotations never need")


def _box(element: ElementTree.Element, place: str) -> Box:
    values = []
    for name in ("xmin", "ymin", "xmax", "ymax"):
        text = element.findtext(name)
        try:
            values.append(float(text) - 1)
        except (TypeError, ValueError) as error:
            raise DataError(f"{place}: bndbox/{name} must be a number, got {text!r}") from error
    return tuple(values)


def _unrelated(path: str) -> Iterator[tuple[str, int]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words: list[Any] = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2 or not words[1].isdecimal():
            raise DataError(f"{path}:{number}: expected '<image id> <sentence number>', got {line!r:.80}")
        yield Path(words[0]).stem, int(words[1]) - 1
