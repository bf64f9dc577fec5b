"""POPE: is an object in the image? Questions that measure whether a model sees what is not there.

Layout: github AoiDragon/POPE (Li et al., EMNLP 2023): ``coco_pope_{random,popular,adversarial}.json``, JSON lines
``{"question_id", "image", "text", "label": "yes" | "no"}`` in spite of the ending.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from mllm.dataset.rows import JsonlRows, Row
from mllm.dataset.tasks import QUESTION_FIRST_IMAGE, QuestionDataset, text_field
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path

LABELS = ("yes", "no")


@DATASETS.register_module()
class POPE(QuestionDataset):
    """One setting of POPE; ``meta["category"]`` is the setting, by default the end of the file's name.

    The three settings together are three of these in a ``ConcatDataset``.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        setting: str | None = None,
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(JsonlRows(path), files=[path], **options)
        self.setting = setting or Path(path).stem.rpartition("_")[2]

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question; its answer is the label."""
        label = row["label"]
        if label not in LABELS:
            raise DataError(f"{row.place}: field 'label' must be 'yes' or 'no', got {label!r:.40}")
        return self.question_item(
            rng,
            img_path=text_field(row, "image"),
            question=text_field(row, "text"),
            answers=[label],
            question_id=row["question_id"],
            category=self.setting,
        )
