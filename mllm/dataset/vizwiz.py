"""VizWiz: photographs by people who are blind, with captions (arXiv 2002.08565) and questions (arXiv 1802.08218)."""

from __future__ import annotations

import random
from typing import Any

from mllm.dataset.coco_caption import CocoCaptionDataset, CocoCaptionRows
from mllm.dataset.rows import JsonRows, Row
from mllm.dataset.tasks import PER, QUESTION_FIRST_IMAGE, QuestionDataset, check_choice, text_field
from mllm.dataset.vqa import AnnotationRows, NumberedRows, answers_of, vqa_item
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path

LAYOUTS = ("vizwiz", "vqa")


@DATASETS.register_module()
class VizWizCaption(CocoCaptionDataset):
    """VizWiz-Captions: COCO's layout with ``is_rejected``, ``is_precanned`` and ``text_detected`` in an annotation.

    As in the authors' API, rejected captions and precanned ones ("Quality issues are too severe to recognize visual
    content.") do not count, and an image that has no other is left out. ``meta["text_detected"]`` is kept.

    Args:
        path: ``train.json``, ``val.json`` or ``test.json``.
        image_root: the folder of the images' ``file_name``.
        per: ``"image"`` or ``"caption"``, as for ``COCOCaption``.
        keep_rejected: keep captions that are rejected.
        keep_precanned: keep captions that are precanned.
        unlabelled: every image of a file without captions (``test.json``), to predict on; the items have no answer.
        questions: template set with ``<image>``.
        exif: what to do with turned photographs; by default they are shown upright, as people saw them.
        seed: of the choice of question and caption.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        per: str = "image",
        keep_rejected: bool = False,
        keep_precanned: bool = False,
        unlabelled: bool = False,
        questions: str | list[str] = "caption",
        exif: str = "apply",
        seed: int = 0,
    ) -> None:
        check_choice(self, "per", per, PER)
        path = resolve_path(path)
        dropped = [
            field for field, kept in (("is_rejected", keep_rejected), ("is_precanned", keep_precanned)) if not kept
        ]
        rows = CocoCaptionRows(path, per, lambda row: not any(row.get(field) for field in dropped), unlabelled)
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed, "files": [path]}
        super().__init__(rows, **options)


@DATASETS.register_module()
class VizWizVQA(QuestionDataset):
    """VizWiz-VQA: spoken questions with ten answers each, many of them "unanswerable".

    The truth holds all answers; trained is the one given most often. An item of a test set has no answer.

    Args:
        path: the one file of the authors' layout, an array of ``{"image", "question", "answers": [{"answer",
            "answer_confidence"}], "answer_type", "answerable"}``; or the questions file of VQAv2's layout.
        image_root: the folder of the images.
        layout: ``"vizwiz"`` (the one file) or ``"vqa"`` (``{"questions": […]}`` beside ``annotations``).
        annotations: the file ``{"annotations": […]}`` of the layout ``"vqa"``.
        questions: templates with ``<question>`` and ``<image>``.
        exif: what to do with turned photographs; by default they are shown upright, as people saw them.
        seed: of the choice of question.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        layout: str = "vizwiz",
        annotations: str | None = None,
        questions: str | list[str] = QUESTION_FIRST_IMAGE,
        exif: str = "apply",
        seed: int = 0,
    ) -> None:
        check_choice(self, "layout", layout, LAYOUTS)
        path = resolve_path(path)
        self.annotations = AnnotationRows(annotations) if annotations and layout == "vqa" else None
        self.layout = layout
        rows = JsonRows(path) if layout == "vizwiz" else NumberedRows(JsonRows(path, "questions"))
        files = [path, *([self.annotations.path] if self.annotations else [])]
        super().__init__(rows, questions=questions, image_root=image_root, exif=exif, seed=seed, files=files)

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One question with its answers."""
        if self.layout == "vqa":
            return vqa_item(self, row, self.annotations.of(row) if self.annotations else None, "{image_id}", rng)
        return self.question_item(
            rng,
            img_path=text_field(row, "image"),
            question=text_field(row, "question"),
            answers=answers_of(row) if "answers" in row else (),
            category=row.get("answer_type"),
            answerable=row.get("answerable"),
        )
