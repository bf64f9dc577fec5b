"""RSIVQA: questions on remote-sensing images of UCM, Sydney, AID, HRRSD and DOTA, one a line.

Layout: github spectralpublic/RSIVQA (Zheng et al., Mutual Attention Inception Network, IEEE TGRS 2021): text lines
``P0706: how many ships are there in this picture?548``.
"""

from __future__ import annotations

import os
import random
from typing import Any

from mllm.dataset.rows import Row
from mllm.dataset.tasks import QUESTION_FIRST_IMAGE, QuestionDataset
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.utils.storage import read_text, resolve_path


@DATASETS.register_module()
class RSIVQA(QuestionDataset):
    """Questions ``image: question?answer``: the image ends at the first colon, the question at the last question mark.

    Image names stand without extension in DOTA's files and with it in the others'; ``image_suffix`` is put behind
    those without.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        image_suffix: str = ".png",
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        rows = [
            _parsed(line, number, f"{path}:{number}")
            for number, line in enumerate(read_text(path).splitlines(), start=1)
            if line.strip()
        ]
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(rows, files=[path], **options)
        self.image_suffix = image_suffix

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One line."""
        name = row["image"]
        return self.question_item(
            rng,
            img_path=name if os.path.splitext(name)[1] else name + self.image_suffix,
            question=row["question"],
            answers=[row["answer"]],
            question_id=row["line"],
            category=question_type(row["question"], row["answer"]),
        )


def question_type(question: str, answer: str) -> str:
    """What an RSIVQA question asks for: count, presence (yes or no), or other."""
    if question.lower().startswith("how many"):
        return "count"
    return "presence" if answer.lower() in ("yes", "no") else "other"


def _parsed(line: str, number: int, place: str) -> Row:
    image, colon, rest = line.partition(":")
    question, mark, answer = rest.rpartition("?")
    fields = {"image": image.strip(), "question": question.strip() + mark, "answer": answer.strip()}
    if not colon or not mark or not all(fields.values()):
        raise DataError(f"{place}: expected 'image: question?answer', got {line.strip()!r:.80}")
    return Row({**fields, "line": number}, place)
