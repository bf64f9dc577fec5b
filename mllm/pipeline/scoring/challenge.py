"""The result files that challenge servers take, made from the predictions of a run; no truth is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mllm.errors import DataError
from mllm.structures import Record
from mllm.utils.files import atomic_write

OF_CAPTIONS, OF_QUESTIONS = {"references"}, {"question", "answers"}


def write_challenge(path: Path, records: Sequence[Record]) -> str:
    """Write the file of ``challenge_rows``; what it holds, in words."""
    rows = challenge_rows(records)
    atomic_write(path, json.dumps(rows, ensure_ascii=False) + "\n")
    return f"{len(rows)} entries of {' and '.join(rows[0]) if rows else 'nothing'}"


def challenge_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One entry a record, by id; what could not be generated has the empty text.

    ``{"question_id": int, "answer"}`` where records bear a ``question_id`` (VQAv2, TextVQA), ``{"image", "answer"}``
    for other questions (VizWiz-VQA), ``{"image_id": int, "caption"}`` for captions (COCO, VizWiz). DataError where an
    id is missing or twice, or where the records are of another kind.
    """
    if any("question_id" in record.meta for record in records):
        key, text, known = "question_id", "answer", OF_QUESTIONS
    elif any("question" in record.truth for record in records):
        key, text, known = "image", "answer", OF_QUESTIONS
    else:
        key, text, known = "image_id", "caption", OF_CAPTIONS
    found: dict[Any, str] = {}
    for record in records:
        if other := sorted(set(record.truth) - known):
            wanted = "captions and questions with short answers have challenge files"
            raise DataError(f"record {record.index}: its truth has {', '.join(map(repr, other))}; {wanted}")
        value = _file_name(record) if key == "image" else _number(record, key)
        if value in found:
            raise DataError(
                f"record {record.index}: {key} {value} has an answer already; a challenge file has one each"
            )
        found[value] = "" if record.failure else " ".join(record.pred.split())
    return [{key: value, text: found[value]} for value in sorted(found)]


def _number(record: Record, name: str) -> int:
    value = record.meta.get(name)
    if type(value) is not int and not (isinstance(value, str) and value.isdecimal()):
        raise DataError(f"record {record.index}: meta[{name!r}] must be a whole number, got {value!r:.60}")
    return int(value)


def _file_name(record: Record) -> str:
    value = record.meta.get("image_id")
    if not isinstance(value, str) or not value:
        raise DataError(f"record {record.index}: meta['image_id'] must be the image's name, got {value!r:.60}")
    return PurePosixPath(value).name
