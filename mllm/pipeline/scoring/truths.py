"""Annotations that predictions of others are scored against: a table of layouts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllm.dataset.rows import Row
from mllm.dataset.scienceqa import answer_letter, categories, choices_of
from mllm.dataset.vqa import answers_of
from mllm.errors import DataError
from mllm.pipeline.scoring.files import DataFile, Layout, layout_of, read_file, value_of
from mllm.pipeline.scoring.predictions import numbered

ID_FIELDS = ("question_id", "id", "index", "image_id")
TRUTH_FIELDS = ("answers", "answer", "references", "choices", "boxes", "points", "masks")


@dataclass
class Truth:
    """What is true of one sample, with its ids by their field's name; ``question`` where the file tells it."""

    truth: dict[str, Any]
    ids: dict[str, str]
    meta: dict[str, Any] = field(default_factory=dict)
    question: str | None = None


def read_truths(paths: Sequence[str]) -> tuple[list[Truth], bool]:
    """All truths in the order of the files, and whether their protocol allows a join by order (POPE).

    ScienceQA's ``pid_splits.json`` beside the problems says which splits a problem is in (``meta["split"]``).
    """
    truths, ordered, splits = [], [], {}
    for path in paths:
        file = read_file(path)
        layout = layout_of(file, TRUTHS, "annotations")
        if layout.name == SPLITS:
            splits |= file.mapping
        else:
            truths += layout.read(file)
            ordered.append(layout.name == "POPE")
    if not truths:
        raise DataError(f"{', '.join(paths)}: no sample in it; expected a file with the true answers")
    if splits:
        members = {split: set(map(str, found)) for split, found in splits.items()}
        for one in truths:
            one.meta["split"] = [split for split, found in members.items() if one.ids.get("question_id") in found]
    return truths, bool(ordered) and all(ordered)


def _pope(file: DataFile) -> Iterator[Truth]:
    setting = re.search(r"_(random|popular|adversarial)(?=[._]|$)", Path(file.path).name)
    category = {"category": setting[1]} if setting else {}
    for where, row in numbered(file.rows, file.path):
        ids = {"question_id": str(value_of(row, "question_id", where))}
        label = value_of(row, "label", where, str)
        meta = {"image_id": value_of(row, "image", where), **category}
        yield Truth({"answers": [label]}, ids, meta, value_of(row, "text", where, str))


def _vqa(file: DataFile) -> Iterator[Truth]:
    key = "annotations" if "annotations" in file.mapping else "data"
    for where, row in numbered(value_of(file.mapping, key, file.path, list), file.path):
        image = value_of(row, "image_id", where)
        ids = {"question_id": str(value_of(row, "question_id", where)), "image_id": str(image)}
        yield Truth({"answers": answers_of(Row(row, where))}, ids, _meta(row, image), row.get("question"))


def _vizwiz(file: DataFile) -> Iterator[Truth]:
    for where, row in numbered(file.rows, file.path):
        image = value_of(row, "image", where, str)
        yield Truth({"answers": answers_of(Row(row, where))}, {"image": image}, _meta(row, image), row.get("question"))


def _meta(row: Mapping[str, Any], image: Any) -> dict[str, Any]:
    known = ("question_type", "answer_type", "answerable", "category")
    return {"image_id": image, **{name: row[name] for name in known if row.get(name) is not None}}


def _problems(file: DataFile) -> Iterator[Truth]:
    for pid in file.mapping:
        problem = value_of(file.mapping, pid, file.path, dict)
        row = Row(problem, f"{file.path}[{pid}]")
        truth = {"answer": answer_letter(row), "choices": list(row["choices"])}
        meta = {"image_id": pid, "split": problem.get("split"), **categories(row)}
        yield Truth(truth, {"question_id": pid}, meta, problem.get("question"))


def _llava_problems(file: DataFile) -> Iterator[Truth]:
    for where, row in numbered(file.rows, file.path):
        pid, turns = str(value_of(row, "id", where)), value_of(row, "conversations", where, list)
        question, reply = (str(turns[place].get("value")) for place in (0, -1)) if turns else ("", "")
        options = choices_of(question)
        if not options or not re.fullmatch("[A-E]", reply.strip()):
            raise DataError(f"{where}: expected a question that ends with its choices and a letter as answer")
        contexts = {"TXT": "Context: " in question and "Context: N/A" not in question, "IMG": "image" in row}
        meta = {"image_id": pid, "context": [name for name, there in contexts.items() if there] or ["NO"]}
        yield Truth({"answer": reply.strip(), "choices": options}, {"question_id": pid}, meta)


def _captions(file: DataFile) -> Iterator[Truth]:
    """The captions of each image; VizWiz's rejected and precanned ones do not count (arXiv 2002.08565)."""
    references: dict[str, list[str]] = {}
    for where, row in numbered(value_of(file.mapping, "annotations", file.path, list), file.path):
        if not row.get("is_rejected") and not row.get("is_precanned"):
            caption = value_of(row, "caption", where, str)
            references.setdefault(str(value_of(row, "image_id", where)), []).append(caption)
    for image, captions in references.items():
        yield Truth({"references": captions}, {"image_id": image}, {"image_id": image})


def _gqa(file: DataFile) -> Iterator[Truth]:
    for key in file.mapping:
        row = value_of(file.mapping, key, file.path, dict)
        where, types = f"{file.path}[{key}]", row.get("types") or {}
        meta = {"image_id": value_of(row, "imageId", where), "category": types.get("structural")}
        yield Truth({"answers": [value_of(row, "answer", where, str)]}, {"question_id": key}, meta, row.get("question"))


def _generic(file: DataFile) -> Iterator[Truth]:
    for where, row in numbered(file.rows, file.path):
        ids = {name: str(row[name]) for name in ID_FIELDS if isinstance(row.get(name), (str, int))}
        if not ids:
            raise DataError(f"{where}: no id; expected one of the fields {', '.join(ID_FIELDS)}")
        nested, meta = (dict(value_of(row, name, where, dict)) if row.get(name) else {} for name in ("truth", "meta"))
        truth = {**nested, **{name: row[name] for name in TRUTH_FIELDS if name in row}}
        if isinstance(truth.get("answer"), str) and "choices" not in truth:
            truth.setdefault("answers", [truth["answer"]])
        used = {*TRUTH_FIELDS, "truth", "meta", "pred", "target", "frames", "failure", "index", "id"}
        meta |= {name: value for name, value in row.items() if name not in used}
        yield Truth(truth, ids, meta, row.get("question"))


def _first(file: DataFile) -> Mapping[str, Any]:
    """The first entry of a mapping of ids to objects, or of its ``annotations`` or ``data``."""
    for name in ("annotations", "data"):
        if name in file.mapping:
            rows = file.mapping[name]
            return rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    value = next(iter(file.mapping.values()), None)
    return value if isinstance(value, dict) else {}


SPLITS = "ScienceQA splits"
TRUTHS = (
    Layout("POPE", '{"question_id", "image", "text", "label"} lines', lambda file: file.has("text", "label"), _pope),
    Layout(
        "VQA",
        '{"annotations" or "data": [{"question_id", "image_id", "answers"}]}',
        lambda file: {"question_id", "answers"} <= _first(file).keys(),
        _vqa,
    ),
    Layout(
        "COCO captions", '{"annotations": [{"image_id", "caption"}]}', lambda file: "caption" in _first(file), _captions
    ),
    Layout("ScienceQA", '{id: {"question", "choices", "answer"}}', lambda file: "choices" in _first(file), _problems),
    Layout("GQA", '{id: {"question", "answer", "imageId"}}', lambda file: "imageId" in _first(file), _gqa),
    Layout(
        SPLITS,
        '{"test": [id, …]}',
        lambda file: (
            bool(file.mapping)
            and all(isinstance(one, list) for one in file.mapping.values())
            and "test" in file.mapping
        ),
        lambda file: iter(()),
    ),
    Layout(
        "LLaVA ScienceQA", '[{"id", "conversations"}]', lambda file: file.has("id", "conversations"), _llava_problems
    ),
    Layout(
        "VizWiz",
        '[{"image", "question", "answers"}]',
        lambda file: file.has("image", "answers") and not file.has("id"),
        _vizwiz,
    ),
    Layout(
        "generic",
        '{"id" or "question_id" or "index" or "image_id", "answers" or "references" or "boxes" or "truth"} lines',
        lambda file: (
            any(file.has(name) for name in (*TRUTH_FIELDS, "truth")) and any(file.has(name) for name in ID_FIELDS)
        ),
        _generic,
    ),
)
