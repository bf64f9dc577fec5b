"""RSVQA: questions on Sentinel-2 (LR) and aerial (HR) images in the layout of their authors.

Layout: rsvqa.sylvainlobry.com, Zenodo 6344334 (Lobry et al., IEEE TGRS 58(12), 2020): three files a split whose lists
are indexed by id; what belongs to another split stands there as ``{"id", "active": false}``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mllm.dataset.rows import JsonRows, Row
from mllm.dataset.tasks import QUESTION_FIRST_IMAGE, QuestionDataset, file_name
from mllm.errors import ConfigError, DataError, choices
from mllm.registry import DATASETS
from mllm.utils.storage import join, resolve_path

PARTS = ("images", "questions", "answers")
TYPES = ("rural_urban", "presence", "count", "comp")


@DATASETS.register_module()
class RSVQALR(QuestionDataset):
    """RSVQA-LR, one item a question of the split; ``meta["category"]`` is the question's type.

    Counts stand as they were counted; the paper's classes (0, 1 to 10, 11 to 100, …) are the evaluation's.

    Args:
        root: the folder of the three files.
        image_root: the folder of the images.
        split: train, val or test.
        files: the files' names; RSVQA-HR has ``USGS_split_{split}_{part}.json``.
        image_pattern: the images' names.
        question_types: the types to keep (rural_urban, presence, count, comp); all by default.
        questions: templates with ``<question>`` and ``<image>``.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        root: str,
        image_root: str,
        split: str = "train",
        files: str = "LR_split_{split}_{part}.json",
        image_pattern: str = "{image_id}.tif",
        question_types: Sequence[str] | None = None,
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        paths = [join(resolve_path(root), file_name(files, split=split, part=part)) for part in PARTS]
        rows = _joined(*paths)
        if question_types is not None:
            present = {row["type"] for row in rows} | set(TYPES)
            for name in question_types:
                if name not in present:
                    raise ConfigError(f"RSVQALR: no question type {name!r}; {choices(str(name), present)}")
            rows = [row for row in rows if row["type"] in question_types]
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(rows, files=paths, **options)
        self.image_pattern = image_pattern

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question."""
        return self.question_item(
            rng,
            img_path=file_name(self.image_pattern, image_id=row["img_id"]),
            question=row["question"],
            answers=[row["answer"]],
            question_id=row["question_id"],
            category=row["type"],
        )


def _joined(images_path: str, questions_path: str, answers_path: str) -> list[Row]:
    images = {row["id"] for row in _active(images_path, "images")}
    answers = {row["id"]: row["answer"] for row in _active(answers_path, "answers")}
    rows = []
    for row in _active(questions_path, "questions"):
        if row["img_id"] not in images:
            raise DataError(f"{row.place}: img_id {row['img_id']!r} is no active image of {images_path!r}")
        found = [answers[one] for one in row["answers_ids"] if one in answers]
        if not found:
            raise DataError(f"{row.place}: answers_ids {row['answers_ids']!r:.60}: none is active in {answers_path!r}")
        chosen = {key: row[key] for key in ("img_id", "question", "type")}
        rows.append(Row({**chosen, "question_id": row["id"], "answer": str(found[0])}, row.place))
    return rows


def _active(path: str, key: str) -> list[Row]:
    return [row for row in JsonRows(path, key) if row["active"]]
