"""Grounded captions: a box stands in the question, the answer describes what it holds."""

from __future__ import annotations

from mllm.dataset.reg import REGJsonl
from mllm.registry import DATASETS


@DATASETS.register_module()
class GCJsonl(REGJsonl):
    """Region captions from JSON lines ``{"img_path", "expression", "bbox"}`` (Shikra's ``GC_genome196_train``).

    The rows are those of ``REGJsonl``; only the question differs. A caption describes its box (arXiv 2306.15195,
    grounding captioning on Visual Genome) and need not tell it from the others of the image.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        questions: str | list[str] = "grounded_caption",
        bbox_format: str = "xyxy",
        caption_min_words: int | None = None,
        caption_max_words: int | None = None,
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        super().__init__(
            path, image_root, questions, bbox_format, caption_min_words, caption_max_words, seed=seed, exif=exif
        )
