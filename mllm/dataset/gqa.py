"""GQA: compositional questions about Visual Genome images.

Layout: cs.stanford.edu/people/dorarad/gqa (Hudson and Manning, CVPR 2019): ``testdev_balanced_questions.json``
and its like, ``{qid: {"question", "answer", "fullAnswer", "imageId", "types", …}}``.
"""

from __future__ import annotations

import random
from typing import Any

from mllm.dataset.object_rows import ObjectRows
from mllm.dataset.rows import Row
from mllm.dataset.tasks import QUESTION_FIRST_IMAGE, QuestionDataset, check_choice, file_name, text_field
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path

ANSWERS = ("answer", "fullAnswer")


@DATASETS.register_module()
class GQA(QuestionDataset):
    """GQA, one item a question; ``meta["category"]`` is the structural type (query, verify, logical, choose, compare).

    Args:
        path: the questions file; a test file without answers gives items without answer.
        image_root: the folder of the images.
        answer: the field to train on: ``"answer"`` (a word or two) or ``"fullAnswer"`` (a sentence). The truth is
            ``answer`` either way.
        image_pattern: the images' names.
        questions: templates with ``<question>`` and ``<image>``.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        answer: str = "answer",
        image_pattern: str = "{image_id}.jpg",
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        check_choice(self, "answer", answer, ANSWERS)
        path = resolve_path(path)
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(ObjectRows(path), files=[path], **options)
        self.answer, self.image_pattern = answer, image_pattern

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question."""
        answered = "answer" in row
        return self.question_item(
            rng,
            img_path=file_name(self.image_pattern, image_id=row["imageId"]),
            question=text_field(row, "question"),
            answers=[text_field(row, "answer")] if answered else [],
            answer=text_field(row, self.answer) if answered else None,
            question_id=row["id"],
            category=(row.get("types") or {}).get("structural"),
        )

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of question and answer, one image)."""
        row = self.rows[index]
        return len(row["question"]) + len(row.get(self.answer, "")), 1
