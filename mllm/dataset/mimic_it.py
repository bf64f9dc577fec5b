"""MIMIC-IT: instructions with images in base64 and in-context examples, the data of Otter.

Layout: github Luodian/Otter (Li et al., arXiv 2306.05425): ``XX_instructions.json`` ``{"meta", "data":
{id: {"instruction", "answer", "image_ids", "rel_ins_ids"}}}``, ``XX_train.json`` ``{id: [ids of examples]}``,
and the images as ``XX.json`` ``{image id: base64}`` or as parquet with the column ``base64`` and the image id as index.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.base64_images import Base64Images
from mllm.dataset.object_rows import ObjectRows
from mllm.dataset.rows import Row
from mllm.dataset.tasks import exchange, text_field
from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import IMAGE_PLACEHOLDER
from mllm.utils.storage import resolve_path

LEADING_PUNCTUATION = ",.!?*#:;~"
MAX_QUESTION_WORDS = 256


@DATASETS.register_module()
class MIMICIT(RowDataset):
    """One part of MIMIC-IT (LA, SD, CGD, DC, …): the in-context examples are earlier turns of one conversation.

    Each turn shows the images of its instruction, one ``<image>`` each, unless they are those of the turn before: the
    turns of a conversation about one image (LACONV) show it once.

    Args:
        instructions: ``XX_instructions.json``.
        images: ``XX.json`` or ``XX.parquet`` (``pip install 'mllm[parquet]'``); not needed for text alone.
        context: ``XX_train.json``; its ids are then the rows. Without it every instruction is a row.
        related: without ``context``, take ``rel_ins_ids`` as in-context examples.
        max_examples: of the in-context examples keep the last ones.
        max_images: of the images of one instruction keep that many at even distances (frames of a video).
        clean_questions: lower case, no leading punctuation, ``-`` and ``/`` as spaces, 256 words at most, as the first
            Otter was trained. Answers have their white space collapsed and are never changed otherwise.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        instructions: str,
        images: str | None = None,
        context: str | None = None,
        related: bool = False,
        max_examples: int | None = None,
        max_images: int | None = None,
        clean_questions: bool = False,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        if max_images is not None and max_images < 1:
            raise ConfigError(f"MIMICIT: max_images={max_images!r} must be at least 1; leave it out to keep all")
        files = [resolve_path(path) for path in (instructions, images, context) if path]
        self.instructions = ObjectRows(resolve_path(instructions), "data")
        self.images = Base64Images(resolve_path(images)) if images else None
        rows = ObjectRows(resolve_path(context)) if context else self.instructions
        super().__init__(rows, exif=exif, seed=seed, files=files)
        self.context, self.related = bool(context), related
        self.max_examples, self.max_images, self.clean_questions = max_examples, max_images, clean_questions

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One instruction behind its in-context examples."""
        turns, names, shown = [], [], None
        chain = self._chain(row)
        for instruction in chain:
            own = self._image_ids(instruction)
            new = [] if own == shown else own
            shown = own
            names += new
            question, answer = self._texts(instruction)
            turns += exchange(f"{IMAGE_PLACEHOLDER}\n" * len(new) + question, answer)
        return {
            "images": [self._image(name, row.place) for name in names],
            "conversations": turns,
            "truth": {"references": [turns[-1]["value"]]},
            "meta": {
                "source": type(self).__name__,
                "question_id": row["id"],
                "image_id": shown[0] if shown else row["id"],
                "category": row["id"].partition("_INS_")[0],
                "examples": len(chain) - 1,
            },
        }

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of all instructions and answers, images)."""
        chain = self._chain(self.rows[index])
        ids = [self._image_ids(one) for one in chain]
        images = sum(len(own) for own, before in zip(ids, [None, *ids], strict=False) if own != before)
        return sum(len(one["instruction"]) + len(one["answer"]) for one in chain), images

    def _chain(self, row: Row) -> list[Row]:
        examples = row["value"] if self.context else (row.get("rel_ins_ids") or []) if self.related else []
        if not isinstance(examples, list):
            raise DataError(f"{row.place}: expected a list of in-context instruction ids, got {examples!r:.60}")
        if self.max_examples is not None:
            examples = examples[max(len(examples) - self.max_examples, 0) :]
        return [self._instruction(one, row.place) for one in (*examples, row["id"])]

    def _instruction(self, identity: str, place: str) -> Row:
        row = self.instructions.find(identity)
        if row is None:
            raise DataError(f"{place}: instruction {identity!r} is not in {self.instructions.name!r}")
        return row

    def _texts(self, row: Row) -> tuple[str, str]:
        question = text_field(row, "instruction").replace(IMAGE_PLACEHOLDER, "").strip()
        answer = " ".join(text_field(row, "answer").split())
        return clean_question(question) if self.clean_questions else question, answer

    def _image_ids(self, row: Row) -> list[str]:
        return evenly_spaced(row.get("image_ids") or [], self.max_images)

    def _image(self, name: str, place: str) -> Any:
        if self.images is None:
            raise DataError(f"{place}: has images but no images=… is given")
        return self.images.image(name, place, self.exif)


def clean_question(text: str) -> str:
    """Otter's cleaning: lower case, no leading punctuation, ``-`` and ``/`` as spaces, at most 256 words."""
    text = text.lower().lstrip(LEADING_PUNCTUATION).replace("-", " ").replace("/", " ")
    return " ".join(text.split()[:MAX_QUESTION_WORDS])


def evenly_spaced(values: Sequence[Any], count: int | None) -> list[Any]:
    """At most ``count`` of the values, first and last among them, at even distances; all for None."""
    if count is None or len(values) <= count:
        return list(values)
    return [values[i * (len(values) - 1) // max(count - 1, 1)] for i in range(count)]
