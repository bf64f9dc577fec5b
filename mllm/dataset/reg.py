"""Referring expression generation ("ref_reverse"): the box stands in the question, its expression is the answer.

The same files as for REC: Shikra's JSON lines and the REFER layout; Visual Genome's are in ``visual_genome.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllm.dataset.refer import ReferFolder
from mllm.dataset.regions import REGDataset
from mllm.dataset.rows import open_rows
from mllm.dataset.tasks import check_choice
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path


@DATASETS.register_module()
class REGJsonl(REGDataset):
    """Boxes to be expressed, from JSON lines ``{"img_path", "expression", "bbox"}``.

    ``bbox_format`` is declared as for ``RECJsonl``; ``caption_min_words`` and ``caption_max_words`` leave out shorter
    and longer expressions.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        questions: str | list[str] = "reg",
        bbox_format: str = "xyxy",
        caption_min_words: int | None = None,
        caption_max_words: int | None = None,
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        path = resolve_path(path)
        super().__init__(
            open_rows(path),
            questions=questions,
            bbox_format=bbox_format,
            caption_min_words=caption_min_words,
            caption_max_words=caption_max_words,
            image_root=image_root,
            seed=seed,
            exif=exif,
            files=[path],
        )


@DATASETS.register_module()
class RefCOCOReverse(REGDataset):
    """Boxes to be expressed, from RefCOCO, RefCOCO+, RefCOCOg and RefCLEF in the layout of ``RefCOCO``.

    ``per="sentence"`` gives a row a sentence, for training; ``per="ref"`` a row an object, for evaluation. The truth
    holds all sentences of the object as references in both. ``held_out`` as for ``RefCOCO``.
    """

    def __init__(
        self,
        root: str,
        image_root: str,
        name: str = "refcoco",
        split_by: str = "unc",
        split: str = "train",
        held_out: Sequence[str] = (),
        per: str = "sentence",
        questions: str | list[str] = "reg",
        caption_min_words: int | None = None,
        caption_max_words: int | None = None,
        seed: int = 0,
        exif: str = "error",
    ) -> None:
        check_choice(self, "per", per, ("sentence", "ref"))
        folder = ReferFolder(root, name, split_by, split, held_out)
        super().__init__(
            folder.rows(per),
            questions=questions,
            caption_min_words=caption_min_words,
            caption_max_words=caption_max_words,
            image_root=image_root,
            seed=seed,
            exif=exif,
            files=folder.files,
        )
