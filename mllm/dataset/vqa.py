"""VQAv2 and TextVQA: questions about photographs with ten human answers each.

Layouts: visualqa.org (Goyal et al., CVPR 2017), ``{"questions": […]}`` beside ``{"annotations": […]}``; textvqa.org
(Singh et al., CVPR 2019), ``TextVQA_0.5.1_{train,val,test}.json`` ``{"data": […]}``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mllm.dataset.joins import FieldIndex
from mllm.dataset.rows import JsonRows, Row
from mllm.dataset.tasks import QUESTION_FIRST_IMAGE, QuestionDataset, check_choice, file_name, most_frequent, text_field
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path

LAYOUTS = ("textvqa", "vqa")
NUMBER = "row_number"


@DATASETS.register_module()
class VQAv2(QuestionDataset):
    """VQAv2, and what is laid out like it. The truth holds all answers; trained is the one given most often.

    ``meta["category"]`` is the answer type (yes/no, number, other), ``meta["question_type"]`` the question's beginning.

    Args:
        path: the questions file.
        image_root: the folder of the images.
        annotations: the annotations file; without it, as for a test set, the items have no answer.
        image_pattern: the images' names (``COCO_train2014_{image_id:012d}.jpg``).
        questions: templates with ``<question>`` and ``<image>``.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        annotations: str | None = None,
        image_pattern: str = "COCO_val2014_{image_id:012d}.jpg",
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        self.annotations = AnnotationRows(annotations) if annotations else None
        files = [path, *([self.annotations.path] if self.annotations else [])]
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(NumberedRows(JsonRows(path, "questions")), files=files, **options)
        self.image_pattern = image_pattern

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question with its answers."""
        annotation = self.annotations.of(row) if self.annotations else None
        return vqa_item(self, row, annotation, self.image_pattern, rng)


@DATASETS.register_module()
class TextVQA(QuestionDataset):
    """TextVQA in its own layout (questions and answers in one file) or in VQAv2's. The truth holds all answers.

    Args:
        path: ``TextVQA_0.5.1_<split>.json``, or the questions file of the other layout.
        image_root: the folder of the images (``train_images`` holds those of train and val).
        layout: ``"textvqa"`` or ``"vqa"``.
        annotations: the annotations file of the layout ``"vqa"``.
        image_pattern: the images' names.
        questions: templates with ``<question>`` and ``<image>``.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        layout: str = "textvqa",
        annotations: str | None = None,
        image_pattern: str = "{image_id}.jpg",
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        check_choice(self, "layout", layout, LAYOUTS)
        path = resolve_path(path)
        self.annotations = AnnotationRows(annotations) if annotations and layout == "vqa" else None
        files = [path, *([self.annotations.path] if self.annotations else [])]
        rows = JsonRows(path, "data") if layout == "textvqa" else NumberedRows(JsonRows(path, "questions"))
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(rows, files=files, **options)
        self.image_pattern, self.layout = image_pattern, layout

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question with its answers."""
        if self.layout == "textvqa":
            return vqa_item(self, row, row if row.get("answers") else None, self.image_pattern, rng)
        annotation = self.annotations.of(row) if self.annotations else None
        return vqa_item(self, row, annotation, self.image_pattern, rng)


def vqa_item(
    dataset: QuestionDataset, row: Row, annotation: Row | None, image_pattern: str, rng: random.Random
) -> dict[str, Any]:
    """The item of a question and its annotation, whose answers are texts or ``{"answer"}``; None for a test set."""
    answers = [] if annotation is None else answers_of(annotation)
    details = annotation or {}
    return dataset.question_item(
        rng,
        img_path=file_name(image_pattern, image_id=row["image_id"]),
        question=text_field(row, "question"),
        answers=answers,
        answer=most_frequent(answers, details.get("multiple_choice_answer")) if answers else None,
        question_id=row["question_id"],
        category=details.get("answer_type"),
        question_type=details.get("question_type"),
    )


def answers_of(annotation: Row) -> list[str]:
    """The answers in the order of the file."""
    answers = annotation["answers"]
    found = [one.get("answer") if isinstance(one, dict) else one for one in answers]
    if not found or not all(isinstance(one, str) for one in found):
        raise DataError(f"{annotation.place}: field 'answers' must be a list of answers, got {answers!r:.60}")
    return found


class AnnotationRows:
    """The annotations of an official file, found by ``question_id``.

    Official files stand in the order of their questions, which costs nothing; any other order costs one pass.
    """

    def __init__(self, path: str) -> None:
        self.path = resolve_path(path)
        self.rows = JsonRows(self.path, "annotations")
        self._index: FieldIndex | None = None

    def of(self, question: Row) -> Row:
        """The annotation of a numbered question; DataError where there is none."""
        wanted, index = question["question_id"], question[NUMBER]
        if index < len(self.rows) and (row := self.rows[index])["question_id"] == wanted:
            return row
        if self._index is None:
            self._index = FieldIndex(self.rows, "question_id")
        return self._index.find(wanted, question.place)


class NumberedRows(Sequence):
    """Rows that hold their number in the file under ``row_number``."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        row = self.rows[index]
        return Row({**row, NUMBER: index % len(self.rows)}, row.place)
