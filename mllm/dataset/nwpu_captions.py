"""NWPU-Captions: five captions for each of the 31,500 images of NWPU-RESISC45.

Layout: github HaiyanHuang98/NWPU-Captions (Cheng et al., IEEE TGRS 60, 2022): ``dataset_nwpu.json``
``{class: [{"filename", "imgid", "split", "raw", "raw_1", …, "raw_4"}]}``.
"""

from __future__ import annotations

from mllm.dataset.rows import Row
from mllm.dataset.tasks import CaptionDataset, file_name, text_field
from mllm.errors import ConfigError, DataError, choices
from mllm.registry import DATASETS
from mllm.utils.files import read_json
from mllm.utils.storage import resolve_path

FIELDS = ("raw", "raw_1", "raw_2", "raw_3", "raw_4")


@DATASETS.register_module()
class NWPUCaptions(CaptionDataset):
    """NWPU-Captions in its own layout; ``meta["category"]`` is the scene class.

    Args:
        path: ``dataset_nwpu.json``.
        image_root: the folder of the images.
        split: train, val or test; several are joined by ``+``.
        per: ``"image"`` or ``"caption"``: what an item stands for.
        image_pattern: the images' names; ``{category}/{filename}`` is NWPU-RESISC45's own tree.
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
        image_pattern: str = "{category}/{filename}",
        questions: str | list[str] = "caption",
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        rows = in_splits(_rows(path, image_pattern), split, path)
        options = {"image_root": image_root, "questions": questions, "exif": exif, "seed": seed}
        super().__init__(rows, per=per, files=[path], **options)


def in_splits(rows: list[Row], split: str, path: str) -> list[Row]:
    """The rows of the splits that ``split`` joins by ``+``, without their field ``split``, in the order of the file.

    Raises:
        ConfigError: a split of which the file has no image.
    """
    wanted, present = split.split("+"), {row["split"] for row in rows}
    for one in wanted:
        if one not in present:
            raise ConfigError(f"{path}: no image of split {one!r}; {choices(one, present)}")
    kept = [row for row in rows if row["split"] in wanted]
    return [Row({key: row[key] for key in row if key != "split"}, row.place) for row in kept]


def _rows(path: str, image_pattern: str) -> list[Row]:
    classes = read_json(path)
    if not isinstance(classes, dict) or not all(isinstance(rows, list) for rows in classes.values()):
        raise DataError(f"{path}: expected {{class: [images]}}, as in dataset_nwpu.json")
    return [
        _row(Row(values, f"{path}:{category}[{number}]"), category, image_pattern)
        for category, rows in classes.items()
        for number, values in enumerate(rows)
    ]


def _row(row: Row, category: str, image_pattern: str) -> Row:
    captions = [text_field(row, key).strip() for key in FIELDS if key in row]
    captions = [caption for caption in captions if caption]
    if not captions:
        raise DataError(f"{row.place}: no caption in {', '.join(FIELDS)}")
    values = {
        "img_path": file_name(image_pattern, category=category, filename=text_field(row, "filename")),
        "captions": captions,
        "category": category,
        "split": row["split"],
    }
    return Row(values, row.place)
