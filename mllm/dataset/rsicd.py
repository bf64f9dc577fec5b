"""RSICD: 10,921 remote-sensing images with five captions each, in Karpathy's layout.

Layout: github 201528014227051/RSICD_optimal (Lu et al., IEEE TGRS 56(4), 2018): ``dataset_rsicd.json``
``{"images": [{"filename", "imgid", "split", "sentences": [{"raw", "tokens"}]}]}``; UCM-captions and Sydney-captions of
the same authors are laid out alike.
"""

from __future__ import annotations

import re

from mllm.dataset.nwpu_captions import in_splits
from mllm.dataset.rows import JsonRows, Row
from mllm.dataset.tasks import CaptionDataset, text_field
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.utils.storage import resolve_path


@DATASETS.register_module()
class RSICD(CaptionDataset):
    """RSICD in Karpathy's layout; ``meta["category"]`` is the scene class where the file's name tells it.

    Args:
        path: ``dataset_rsicd.json``.
        image_root: the folder of the images.
        split: train, val or test; several are joined by ``+``.
        per: ``"image"`` or ``"caption"``: what an item stands for.
        questions: templates with ``<image>``.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        split: str = "train",
        per: str = "image",
        questions: str | list[str] = "caption",
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        rows = in_splits([_row(row) for row in JsonRows(path, "images")], split, path)
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(rows, per=per, files=[path], **options)


def _row(row: Row) -> Row:
    sentences = [Row(values, f"{row.place}.sentences[{n}]") for n, values in enumerate(row["sentences"])]
    captions = [text for text in (text_field(sentence, "raw").strip() for sentence in sentences) if text]
    if not captions:
        raise DataError(f"{row.place}: no caption in 'sentences'")
    name = text_field(row, "filename")
    scene = re.fullmatch(r"([a-z]+)_\d+\.\w+", name)
    found = {"img_path": name, "captions": captions, "split": row["split"]}
    return Row({**found, "category": scene.group(1)} if scene else found, row.place)
