"""LLaVA's instruction files: Pretrain 558k, Instruct-150k, mix665k, XTuner's, and LLaVA's question files.

Layout: github haotian-liu/LLaVA (docs/Data.md, docs/Finetune_Custom_Data.md). mix665k has records without image and
paths such as ``coco/train2017/…``; Instruct-150k names bare COCO ids, whose files of 2014 begin ``COCO_train2014_``.
"""

from __future__ import annotations

import posixpath
import random
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.rows import JsonlRows, Row, open_rows
from mllm.dataset.tasks import QUESTION_FIRST_IMAGE, QuestionDataset, text_field
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.utils.files import read_jsonl
from mllm.utils.storage import resolve_path

MISSPELT = {"conversations": "conversation", "conversation": "conversations"}


@DATASETS.register_module()
class LLaVAInstruct(RowDataset):
    """Conversations ``{"id", "image"?, "conversations": [{"from", "value"}]}``, a JSON array or JSON lines.

    Args:
        path: the annotation file.
        image_root: the folder that ``image`` starts from; not needed where no record has an image.
        image_prefix: put before the file name of ``image`` where it is not there already (``COCO_train2014_``).
        conversations_key: the field with the turns; some files spell it ``conversation``.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        path: str,
        image_root: str | None = None,
        image_prefix: str = "",
        conversations_key: str = "conversations",
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        super().__init__(open_rows(path), image_root=image_root, exif=exif, seed=seed, files=[path])
        self.image_prefix = image_prefix
        self.conversations_key = conversations_key

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """The record with its images opened."""
        turns = turns_of(row, self.conversations_key)
        names = [prefixed(name, self.image_prefix) for name in image_names(row)]
        meta = {"source": type(self).__name__, "question_id": row.get("id"), "image_id": names[0] if names else None}
        return {
            "images": [self.image(name) for name in names],
            "conversations": turns,
            "meta": {key: value for key, value in meta.items() if value is not None},
        }

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of all turns, images)."""
        row = self.rows[index]
        return sum(len(turn["value"]) for turn in turns_of(row, self.conversations_key)), len(image_names(row))


@DATASETS.register_module()
class LLaVAQuestions(QuestionDataset):
    """Questions ``{"question_id", "image", "text", "category"?}``, JSON lines as LLaVA evaluates with.

    ``answers`` names a file of lines ``{"question_id", "text"}`` (``qa90_gpt4_answer.jsonl``); several lines with one
    ``question_id`` are several references.
    """

    def __init__(
        self,
        path: str,
        image_root: str | None = None,
        answers: str | None = None,
        image_prefix: str = "",
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        files = [path, resolve_path(answers)] if answers else [path]
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(JsonlRows(path), files=files, **options)
        self.image_prefix = image_prefix
        self.answers_path = files[-1]
        self.answers = _answers(files[-1]) if answers else None

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question and, where answers are given, its answer."""
        names = [prefixed(name, self.image_prefix) for name in image_names(row)]
        question_id = row["question_id"]
        answers: list[str] = []
        if self.answers is not None:
            if question_id not in self.answers:
                raise DataError(f"{row.place}: question_id {question_id!r} has no line in {self.answers_path!r}")
            answers = self.answers[question_id]
        item = self.question_item(
            rng,
            img_path=names[0] if names else None,
            question=text_field(row, "text"),
            answers=answers,
            question_id=question_id,
            category=row.get("category"),
        )
        if answers:
            item["truth"]["references"] = list(answers)
        return item

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of the question, images)."""
        row = self.rows[index]
        return len(row["text"]), len(image_names(row))


def turns_of(row: Row, key: str = "conversations") -> list[dict[str, Any]]:
    """The turns in field ``key``; DataError that names the other spelling where the record has that one."""
    other = MISSPELT.get(key)
    if key not in row and other in row:
        raise DataError(
            f"{row.place}: field {key!r} is missing but there is {other!r}; set conversations_key={other!r} to read it"
        )
    turns = row[key]
    if not isinstance(turns, list):
        raise DataError(f"{row.place}: field {key!r} must be a list of turns, got {turns!r:.60}")
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise DataError(f"{row.place}: {key}[{number}] must be an object with text in 'value', got {turn!r:.60}")
    return turns


def image_names(row: Row) -> list[str]:
    """The names in ``image``: none where it is absent, null or empty; several where it is a list."""
    names = row.get("image") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{row.place}: field 'image' must be a name or a list of names, got {names!r:.60}")
    return names


def prefixed(name: str, prefix: str) -> str:
    """``coco/1.jpg`` → ``coco/<prefix>1.jpg``, unless the prefix stands there already."""
    folder, base = posixpath.split(name)
    return name if base.startswith(prefix) else posixpath.join(folder, prefix + base)


def _answers(path: str) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for number, line in read_jsonl(path):
        row = Row(line, f"{path}:{number}")
        found.setdefault(row["question_id"], []).append(text_field(row, "text"))
    return found
