"""Questions about a point: Point QA "local" (arXiv 2011.13681) and Visual7W's "which" questions (arXiv 1511.03416).

Layouts are Shikra's JSON lines (arXiv 2306.15195; github shikras/shikra, single_image_dataset/point_qa.py). The items
are shaped as there: the place stands behind the question, candidates behind the word "Candidates:", and an answer reads
"The answer is …", which is what the evaluation looks for.
"""

from __future__ import annotations

import random
from typing import Any

from mllm.dataset.regions import four_numbers
from mllm.dataset.rows import Row, open_rows
from mllm.dataset.tasks import QUESTION_FIRST_IMAGE, QuestionDataset, check_choice, text_field
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.structures import BOXES_PLACEHOLDER, POINTS_PLACEHOLDER
from mllm.utils.storage import resolve_path

ASK_BY = ("point", "box", "either")
ANSWER_WITH = ("box", "point")


@DATASETS.register_module()
class PointQALocal(QuestionDataset):
    """A question about what lies at a point; lines ``{"file_path", "question", "answer", "bbox", "point"}`` in pixels.

    Args:
        path: ``pointQA_local_<split>.jsonl``.
        image_root: the folder that ``file_path`` starts from (Visual Genome's images).
        ask_by: ``"point"``: ``<points>`` follows the question; ``"box"``: ``<boxes>`` does; ``"either"``: one of them,
            drawn anew in every epoch.
        questions: templates with ``<question>`` and ``<image>``.
        exif: what to do with turned photographs.
        seed: of what is drawn.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        ask_by: str = "point",
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        check_choice(self, "ask_by", ask_by, ASK_BY)
        path = resolve_path(path)
        options = {"image_root": image_root, "exif": exif, "seed": seed, "files": [path]}
        super().__init__(open_rows(path), questions=questions, **options)
        self.ask_by = ask_by

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question, the place that it asks about, and its answer."""
        ask_by = rng.choice(("point", "box")) if self.ask_by == "either" else self.ask_by
        place, sequence = (POINTS_PLACEHOLDER, "points_seq") if ask_by == "point" else (BOXES_PLACEHOLDER, "boxes_seq")
        box, point = list(four_numbers(row, "bbox")), _point(row)
        question, answer = text_field(row, "question").strip(), text_field(row, "answer").strip()
        item = self.question_item(
            rng,
            img_path=text_field(row, "file_path"),
            question=f"{question} {place}",
            answer=f"The answer is {answer}.",
        )
        item["conversations"][0][sequence] = [[0]]
        item["target"] = {"boxes": [box], "points": [point]}
        item["truth"] = {"question": question, "answers": [answer], "boxes": [box], "points": [point]}
        return item


@DATASETS.register_module()
class PointQAVisual7W(QuestionDataset):
    """A "which" question with candidate boxes, one of them right.

    Lines ``{"file_path", "question", "candidates": [box × 4], "answer": box, "point"}`` in pixels; ``answer`` is one of
    the candidates and ``point`` lies in it. The truth holds the right box (``boxes``), the point, the candidates in the
    order of the question and the ``answer_index`` of the right one among them.

    Args:
        path: ``v7w_pointing_<split>.jsonl``.
        image_root: the folder that ``file_path`` starts from.
        answer_with: ``"box"`` or ``"point"``; the question says which is wanted.
        shuffle: the candidates' order is drawn anew in every epoch; else it is the file's.
        questions: templates with ``<question>`` and ``<image>``.
        exif: what to do with turned photographs.
        seed: of what is drawn.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        answer_with: str = "box",
        shuffle: bool = True,
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        check_choice(self, "answer_with", answer_with, ANSWER_WITH)
        path = resolve_path(path)
        options = {"image_root": image_root, "exif": exif, "seed": seed, "files": [path]}
        super().__init__(open_rows(path), questions=questions, **options)
        self.answer_with, self.shuffle = answer_with, shuffle

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question, its candidates and the right one."""
        candidates, answer = _candidates(row), list(four_numbers(row, "answer"))
        if answer not in candidates:
            raise DataError(f"{row.place}: field 'answer' {answer} is none of the candidates {candidates}")
        if self.shuffle:
            rng.shuffle(candidates)
        right, point = candidates.index(answer), _point(row)
        place, name, found = (
            (BOXES_PLACEHOLDER, "boxes_seq", right)
            if self.answer_with == "box"
            else (POINTS_PLACEHOLDER, "points_seq", 0)
        )
        question = text_field(row, "question").strip()
        listed = " ".join([BOXES_PLACEHOLDER] * len(candidates))
        item = self.question_item(
            rng,
            img_path=text_field(row, "file_path"),
            question=f"{question} Candidates: {listed} Answer with a {self.answer_with}.",
            answer=f"The answer is {place} .",
        )
        item["conversations"][0]["boxes_seq"] = [[number] for number in range(len(candidates))]
        item["conversations"][1][name] = [[found]]
        item["target"] = {"boxes": candidates, "points": [point]}
        truth = {"boxes": [answer], "points": [point], "candidates": candidates, "answer_index": right}
        item["truth"] = {"question": question, **truth}
        return item


def _point(row: Row) -> list[float]:
    point = row["point"]
    if not isinstance(point, list) or len(point) != 2 or not all(type(one) in (int, float) for one in point):
        raise DataError(f"{row.place}: field 'point' must be two numbers, got {point!r:.60}")
    return point


def _candidates(row: Row) -> list[list[float]]:
    candidates = row["candidates"]
    if not isinstance(candidates, list) or not candidates:
        raise DataError(f"{row.place}: field 'candidates' must be a list of boxes, got {candidates!r:.60}")
    place = f"{row.place}:candidates"
    return [list(four_numbers(Row({n: box}, place), n)) for n, box in enumerate(candidates)]
