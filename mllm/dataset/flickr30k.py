"""Flickr30k Entities: captions with boxes, and captions of boxes ("flickr30k_reverse"), from either layout.

Layouts: the folder of the authors (``flickr30k_entities.py``) and Shikra's flattened JSON lines ``CWB_flickr30k_*``
(arXiv 2306.15195): ``{"id", "image_id", "boxes", "sentence", "boxes_seq"}`` with ``<ph_st>`` and ``<ph_ed>`` around the
phrases that have boxes.
"""

from __future__ import annotations

import random
import re
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.flickr30k_entities import EntitiesFolder
from mllm.dataset.grounded_sentence import GroundedSentence, Phrase
from mllm.dataset.joins import SelectedRows
from mllm.dataset.rows import Row, open_rows
from mllm.dataset.tasks import PER, check_choice, exchange, text_field
from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import BOXES_PLACEHOLDER, IMAGE_PLACEHOLDER
from mllm.utils.storage import resolve_path

ANSWERS = ("caption", "queried", "all")
_MARKED = re.compile(r"<ph_st>(.*?)<ph_ed>", re.DOTALL)


@DATASETS.register_module()
class Flickr30kEntities(RowDataset):
    """Captions with boxes behind their phrases, from ``root/Sentences``, ``root/Annotations`` and ``root/<split>.txt``.

    Args:
        root: the folder of the annotations.
        image_root: the folder of ``<id>.jpg``.
        split: name of the list of ids; several are joined by ``+``.
        per: ``"caption"`` gives an item a sentence, ``"image"`` an item an image, with another of its sentences to
            train on from epoch to epoch. The truth holds all sentences of the image as references.
        drop_unrelated: leave out the sentences listed in ``root/UNRELATED_CAPTIONS``.
        questions: template set with ``<image>``.
        seed: of the choice of question and sentence.
        exif: what to do with turned photographs.
    """

    def __init__(
        self,
        root: str,
        image_root: str,
        split: str = "train",
        per: str = "caption",
        drop_unrelated: bool = False,
        questions: str | list[str] = "flickr30k",
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        check_choice(self, "per", per, PER)
        self.folder = EntitiesFolder(root, split, per, drop_unrelated)
        options = {"image_root": image_root, "seed": seed, "exif": exif, "files": self.folder.files}
        super().__init__(self.folder, questions=questions, **options)

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One sentence, its image and its phrases' boxes."""
        sentences, numbers = self.folder.read(row)
        number = rng.choice(numbers)
        item = caption_item(self, row, sentences[number], rng)
        item["truth"]["references"] = [sentence.text for sentence in sentences.values()]
        item["meta"]["sentence"] = number
        return item

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of the sentence with its marks, one image)."""
        row = self.rows[index]
        return len(self.folder.sentence_lines(row["image_id"])[row.get("sentence", 0)]), 1


@DATASETS.register_module()
class Flickr30kJsonl(RowDataset):
    """Captions with boxes behind their phrases, from the flattened JSON lines; images ``<image_id>.jpg``."""

    def __init__(
        self,
        path: str,
        image_root: str,
        questions: str | list[str] = "flickr30k",
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        path = resolve_path(path)
        options = {"image_root": image_root, "seed": seed, "exif": exif, "files": [path]}
        super().__init__(open_rows(path), questions=questions, **options)

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One sentence, its image and its phrases' boxes."""
        return caption_item(self, row, flattened(row), rng)


@DATASETS.register_module()
class Flickr30kReverse(RowDataset):
    """Boxes of some phrases in the question, the sentence as answer; over the authors' folder or the flattened lines.

    At most ``box_max_num`` phrases are drawn anew in every epoch. A sentence without any box gives its image's next
    one that has some (``meta["sentence"]`` says which); among the flattened lines it is left out at the start.

    Args:
        image_root: the folder of ``<id>.jpg``.
        root: the folder of the authors' layout; else ``path``.
        split: with ``root``: name of the list of ids; several are joined by ``+``.
        path: the flattened JSON lines; else ``root``.
        box_max_num: how many phrases are asked about at most.
        one_placeholder: all boxes in one ``<boxes>``; else one ``<boxes>`` a phrase.
        answer: the sentence without boxes (``"caption"``), with those of the phrases asked about (``"queried"``), or
            with those of every phrase (``"all"``).
        drop_unrelated: with ``root``: as for ``Flickr30kEntities``.
        questions: template set with ``<objs>`` and ``<image>``.
        seed: of the choice of question and phrases.
        exif: what to do with turned photographs.
    """

    def __init__(
        self,
        image_root: str,
        root: str | None = None,
        split: str = "train",
        path: str | None = None,
        box_max_num: int = 5,
        one_placeholder: bool = True,
        answer: str = "caption",
        drop_unrelated: bool = False,
        questions: str | list[str] = "grounded_caption",
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        check_choice(self, "answer", answer, ANSWERS)
        if (root is None) == (path is None):
            raise ConfigError(f"Flickr30kReverse: root={root!r}, path={path!r}; give one of them")
        if box_max_num < 1:
            raise ConfigError(f"Flickr30kReverse: box_max_num={box_max_num!r}; expected at least 1")
        self.folder = EntitiesFolder(root, split, "caption", drop_unrelated) if root is not None else None
        rows = self.folder if path is None else SelectedRows.where(open_rows(path), _has_boxes)
        files = self.folder.files if path is None else [resolve_path(path)]
        super().__init__(
            rows,
            questions=questions,
            placeholders=("<objs>", IMAGE_PLACEHOLDER),
            image_root=image_root,
            seed=seed,
            exif=exif,
            files=files,
        )
        self.box_max_num, self.one_placeholder, self.answer = box_max_num, one_placeholder, answer

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One sentence and the boxes of some of its phrases."""
        number, sentence = self._sentence(row)
        count = len(sentence.grounded)
        chosen = sorted(rng.sample(range(count), min(count, self.box_max_num)))
        question, question_seq = self._question(sentence, chosen, rng)
        marked = {"caption": (), "queried": chosen, "all": None}[self.answer]
        answer, answer_seq = sentence.marked(marked)
        turns = exchange(question, answer)
        turns[0]["boxes_seq"], turns[1]["boxes_seq"] = question_seq, answer_seq
        meta = meta_of(self, row) | ({} if number is None else {"sentence": number})
        return {
            "image": self.image(f"{row['image_id']}.jpg"),
            "target": {"boxes": list(sentence.boxes)},
            "conversations": turns,
            "truth": {"references": [sentence.text], **sentence.truth(chosen)},
            "meta": meta,
        }

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of the sentence with its marks, one image)."""
        row = self.rows[index]
        if self.folder is None:
            return len(row["sentence"]), 1
        return len(self.folder.sentence_lines(row["image_id"])[row["sentence"]]), 1

    def _question(
        self, sentence: GroundedSentence, chosen: list[int], rng: random.Random
    ) -> tuple[str, list[list[int]]]:
        sequences = [list(sentence.grounded[number].boxes) for number in chosen]
        if self.one_placeholder:
            sequences = [list(dict.fromkeys(position for sequence in sequences for position in sequence))]
        return self.ask(rng, objs=", ".join([BOXES_PLACEHOLDER] * len(sequences))), sequences

    def _sentence(self, row: Row) -> tuple[int | None, GroundedSentence]:
        if self.folder is None:
            return None, flattened(row)
        sentences, (first,) = self.folder.read(row)
        for number in sorted(sentences, key=lambda number: (number < first, number)):
            if sentences[number].grounded:
                return number, sentences[number]
        raise DataError(f"{row.place}: no sentence of image {row['image_id']} has a phrase with a box")


def caption_item(dataset: RowDataset, row: Row, sentence: GroundedSentence, rng: random.Random) -> dict[str, Any]:
    """The item whose answer is the sentence with the boxes of every phrase."""
    answer, sequences = sentence.marked()
    turns = exchange(dataset.ask(rng), answer)
    turns[1]["boxes_seq"] = sequences
    return {
        "image": dataset.image(f"{row['image_id']}.jpg"),
        "target": {"boxes": list(sentence.boxes)},
        "conversations": turns,
        "truth": {"references": [sentence.text], **sentence.truth()},
        "meta": meta_of(dataset, row),
    }


def meta_of(dataset: RowDataset, row: Row) -> dict[str, Any]:
    """Where the row comes from."""
    return {"source": type(dataset).__name__, "image_id": row["image_id"]}


def flattened(row: Row) -> GroundedSentence:
    """The sentence of a flattened line; DataError unless each marked phrase has its list in ``boxes_seq``."""
    sentence, sequences, boxes = text_field(row, "sentence"), row["boxes_seq"], row["boxes"]
    pieces: list[str | Phrase] = []
    end = 0
    for number, match in enumerate(_MARKED.finditer(sentence)):
        own = tuple(sequences[number]) if number < len(sequences) else ()
        wrong = [position for position in own if type(position) is not int or not 0 <= position < len(boxes)]
        if wrong:
            raise DataError(f"{row.place}: boxes_seq[{number}] holds {wrong[0]!r} but there are {len(boxes)} boxes")
        pieces += [sentence[end : match.start()], Phrase(match.group(1), own)]
        end = match.end()
    pieces.append(sentence[end:])
    phrases = sum(isinstance(piece, Phrase) for piece in pieces)
    left = any("<ph_" in (piece if isinstance(piece, str) else piece.text) for piece in pieces)
    if left or phrases != len(sequences):
        raise DataError(
            f"{row.place}: {phrases} <ph_st>…<ph_ed> in 'sentence' but {len(sequences)} lists in 'boxes_seq'"
        )
    return GroundedSentence(tuple(piece for piece in pieces if piece), tuple(map(tuple, boxes)))


def _has_boxes(row: Row) -> bool:
    return bool(flattened(row).grounded)
