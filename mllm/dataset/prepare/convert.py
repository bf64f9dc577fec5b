"""The authors' layouts as flattened lines: every function gives them one by one, as ``write_rows`` takes them.

Held in memory is what the data set of the original layout holds too: REFER's pickles and ScienceQA's ``problems.json``
as a whole, an index of Visual Genome's and VizWiz's files, one image's files of Flickr30k Entities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mllm.dataset.flickr30k_entities import SENTENCES_PER_IMAGE, EntitiesFolder
from mllm.dataset.grounded_sentence import GroundedSentence
from mllm.dataset.refer import ReferFolder
from mllm.dataset.rows import Row
from mllm.dataset.scienceqa import ScienceQA, answer_letter, answer_text, problem_prompt
from mllm.dataset.tasks import exchange, text_field
from mllm.dataset.visual_genome import VisualGenomeRegions
from mllm.dataset.vizwiz import VizWizCaption
from mllm.errors import DataError
from mllm.grounding.geometry import box_area, clip_box
from mllm.utils.files import read_json

Line = dict[str, Any]


@dataclass
class Lines:
    """Lines to write, about how many, and the files they come from; ``dropped`` counts by reason as they are taken."""

    rows: Iterable[Line]
    total: int
    sources: Sequence[str] = ()
    dropped: Counter[str] = field(default_factory=Counter)


def refcoco_lines(root: str, name: str, split_by: str, split: str, held_out: Sequence[str] = ()) -> Lines:
    """Shikra's REC lines of the REFER layout, with the object's number and all its sentences beside them.

    They are read by ``RECJsonl`` and ``REGJsonl``; options as for ``RefCOCO``.
    """
    folder = ReferFolder(root, name, split_by, split, held_out)
    rows = folder.rows()
    place = folder.files[1]
    images = [Row(image, f"{place}:images[{n}]") for n, image in enumerate(read_json(place).get("images", []))]
    sizes = {folder.image_name(image["id"]): (image["height"], image["width"]) for image in images}

    def line(row: Row) -> Line:
        if row["img_path"] not in sizes:
            raise DataError(f"{row.place}: image {row['img_path']!r} is not among 'images' in {place}")
        height, width = sizes[row["img_path"]]
        first = {key: row[key] for key in ("img_path", "expression", "bbox", "dataset_name")}
        return {**first, "height": height, "width": width, "ref_id": row["ref_id"], "references": row["references"]}

    return Lines(map(line, rows), len(rows), folder.files)


def flickr30k_lines(root: str, split: str, drop_unrelated: bool = False) -> Lines:
    """Lines ``CWB_flickr30k_*`` of the authors' folder, one a sentence, for ``Flickr30kJsonl`` and the reverse."""
    folder = EntitiesFolder(root, split, "image", drop_unrelated)
    return Lines(_flattened(folder), len(folder) * SENTENCES_PER_IMAGE, folder.files)


def visual_genome_lines(regions: str, image_data: str, clip: bool = False) -> Lines:
    """REC lines of the region descriptions, for ``RECJsonl``, ``REGJsonl`` and ``GCJsonl``.

    A region without phrase is dropped. ``clip`` cuts boxes at the image's edges and drops what lies outside.
    """
    rows = VisualGenomeRegions(regions, image_data)
    lines = Lines((), len(rows), rows.files)
    lines.rows = _regions(rows, clip, lines.dropped)
    return lines


def vizwiz_lines(path: str, keep_rejected: bool = False, keep_precanned: bool = False) -> Lines:
    """Caption lines of VizWiz-Captions, an image's one after the other, for ``CaptionJsonl`` with ``exif="apply"``."""
    dataset = VizWizCaption(path, "", keep_rejected=keep_rejected, keep_precanned=keep_precanned)
    extra = ("image_id", "text_detected")
    lines = (
        {"img_path": row["img_path"], "caption": caption, **{key: row[key] for key in extra if key in row}}
        for row in dataset.rows
        for caption in row["captions"]
    )
    return Lines(lines, len(dataset), dataset.files)


def scienceqa_lines(root: str, split: str, images: str = "all", answer: str = "letter", instruction: str = "") -> Lines:
    """LLaVA's CQM-A records of ScienceQA, for ``ScienceQACQMA`` and ``LLaVAInstruct``; options as for ``ScienceQA``.

    ``image`` is ``<pid>/image.png`` as LLaVA writes it; where a split has images of several folders (trainval) it
    begins with the folder.
    """
    dataset = ScienceQA(root, split=split, images=images, answer=answer, instruction=instruction)
    folders = {row["split"] for row in dataset.rows if row["image"]}
    return Lines((_record(dataset, row, len(folders) > 1) for row in dataset.rows), len(dataset), dataset.files)


def _flattened(folder: EntitiesFolder) -> Iterator[Line]:
    number = 0
    for row in folder:
        for sentence in folder.read(row)[0].values():
            marked, sequences = _marked(sentence)
            shared = {"id": number, "image_id": row["image_id"]}
            yield {**shared, "boxes": list(sentence.boxes), "sentence": marked, "boxes_seq": sequences}
            number += 1


def _marked(sentence: GroundedSentence) -> tuple[str, list[list[int]]]:
    text, sequences = [], []
    for piece in sentence.pieces:
        if isinstance(piece, str) or not piece.boxes:
            text.append(piece if isinstance(piece, str) else piece.text)
        else:
            text.append(f"<ph_st>{piece.text}<ph_ed>")
            sequences.append(list(piece.boxes))
    return "".join(text), sequences


def _regions(rows: VisualGenomeRegions, clip: bool, dropped: Counter[str]) -> Iterator[Line]:
    known, image = None, Row({}, "")
    for row in rows:
        if row["image_id"] != known:
            known = row["image_id"]
            image = rows.image_data.find(known, row.place)
        size = image["width"], image["height"]
        phrase, box = text_field(row, "expression").strip(), row["bbox"]
        if clip:
            box = clip_box(box, size)
        if not phrase or (clip and not box_area(box)):
            dropped["region outside its image" if phrase else "region without phrase"] += 1
            continue
        shared = {"img_path": row["img_path"], "expression": phrase, "bbox": box, "dataset_name": "visual_genome"}
        numbers = {key: row[key] for key in ("image_id", "region_id")}
        yield {**shared, "height": size[1], "width": size[0], **numbers}


def _record(dataset: ScienceQA, row: Row, with_folder: bool) -> Line:
    reply = answer_text(row, answer_letter(row), dataset.answer)
    name = f"{row['pid']}/{row['image']}"
    image = {"image": f"{row['split']}/{name}" if with_folder else name} if row["image"] else {}
    return {"id": row["pid"], **image, "conversations": exchange(problem_prompt(row, dataset.instruction), reply)}
