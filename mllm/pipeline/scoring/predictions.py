"""Predictions that others wrote, and the questions that go with them: a table of layouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mllm.engine.records import record_of
from mllm.errors import DataError
from mllm.pipeline.scoring.files import DataFile, Layout, layout_of, read_file, value_of
from mllm.structures import Record


@dataclass
class Prediction:
    """An answer with the ids it bears by their field's name; ``record`` where it is one of ours."""

    text: str
    ids: dict[str, str] = field(default_factory=dict)
    prompt: str | None = None
    record: Record | None = None
    category: str | None = None


@dataclass(frozen=True)
class Question:
    """A question with its ids and the fields that ``--select`` may ask for."""

    ids: dict[str, str]
    text: str
    fields: dict[str, Any]


def read_predictions(path: str) -> list[Prediction]:
    """The predictions in the order of the file; DataError for a layout that is not known."""
    file = read_file(path)
    return list(layout_of(file, PREDICTIONS, "predictions").read(file))


def read_questions(path: str) -> list[Question]:
    """LLaVA's question lines, or the questions file of VQA; DataError for any other layout."""
    file = read_file(path)
    return list(layout_of(file, QUESTIONS, "questions").read(file))


def numbered(rows: Sequence[Any], path: str) -> Iterator[tuple[str, Any]]:
    """``path: entry 3`` and the entry; DataError for one that is no object."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: entry {number}: expected an object, got {row!r:.60}")
        yield f"{path}: entry {number}", row


def _records(file: DataFile) -> Iterator[Prediction]:
    for where, row in numbered(file.rows, file.path):
        record = record_of(row, where)
        named = {name: record.meta.get(name) for name in ("question_id", "image_id")} | {
            "id": record.id,
            "index": record.index,
        }
        ids = {name: str(value) for name, value in named.items() if isinstance(value, (str, int))}
        yield Prediction(record.pred, ids, record.meta.get("prompt"), record, record.meta.get("category"))


def _rows_with(id_name: str | None, text_name: str, kind: type | tuple[type, ...] = str) -> Any:
    def read(file: DataFile) -> Iterator[Prediction]:
        for where, row in numbered(file.rows, file.path):
            ids = {} if id_name is None else {id_name: str(value_of(row, id_name, where))}
            text, prompt = value_of(row, text_name, where, kind), row.get("prompt", row.get("question"))
            yield Prediction(str(text), ids, prompt if isinstance(prompt, str) else None)

    return read


def _scienceqa_groups(file: DataFile) -> Iterator[Prediction]:
    rows = [row for name in ("correct", "incorrect") for row in value_of(file.mapping, name, file.path, list)]
    for where, row in numbered(rows, file.path):
        question = row.get("question")
        yield Prediction(
            value_of(row, "pred", where, str), {"question_id": str(value_of(row, "question_id", where))}, question
        )


def _outputs(file: DataFile) -> Iterator[Prediction]:
    outputs = value_of(file.mapping, "outputs", file.path, dict)
    for key in outputs:
        yield Prediction(value_of(outputs, key, f"{file.path}: outputs", str), {"question_id": key})


PREDICTIONS = (
    Layout("mllm", '{"index", "pred"} lines', lambda file: file.has("index", "pred"), _records),
    Layout(
        "LLaVA",
        '{"question_id", "text"} lines',
        # Question files have the same two fields; their other ones tell them apart.
        lambda file: file.has("question_id", "text") and not file.has("label") and not file.has("image"),
        _rows_with("question_id", "text"),
    ),
    Layout(
        "COCO results",
        '[{"image_id", "caption"}]',
        lambda file: file.has("image_id", "caption") and not file.has("id"),
        _rows_with("image_id", "caption"),
    ),
    Layout(
        "VQA results",
        '[{"question_id", "answer"}]',
        lambda file: file.has("question_id", "answer") and not file.has("label"),
        _rows_with("question_id", "answer"),
    ),
    Layout(
        "VizWiz results",
        '[{"image", "answer"}]',
        lambda file: file.has("image", "answer"),
        _rows_with("image", "answer"),
    ),
    Layout(
        "VizWiz answerability",
        '[{"image", "answerable"}]',
        lambda file: file.has("image", "answerable") and not file.has("answers"),
        _rows_with("image", "answerable", (int, float)),
    ),
    Layout(
        "POPE", '{"question", "answer"} lines', lambda file: file.has("question", "answer"), _rows_with(None, "answer")
    ),
    Layout(
        "LLaVA ScienceQA",
        '{"correct": [{"question_id", "pred"}], "incorrect"}',
        lambda file: {"correct", "incorrect"} <= file.mapping.keys() and isinstance(file.mapping["correct"], list),
        _scienceqa_groups,
    ),
    Layout("ScienceQA", '{"outputs": {id: text}}', lambda file: "outputs" in file.mapping, _outputs),
)


def _question_rows(rows: Sequence[Any], text_name: str, path: str) -> Iterator[Question]:
    for where, row in numbered(rows, path):
        ids = {"question_id": str(value_of(row, "question_id", where))}
        ids |= {"image_id": str(row["image_id"])} if "image_id" in row else {}
        yield Question(ids, value_of(row, text_name, where, str), row)


QUESTIONS = (
    Layout(
        "LLaVA",
        '{"question_id", "text", …} lines',
        lambda file: file.has("question_id", "text"),
        lambda file: _question_rows(file.rows, "text", file.path),
    ),
    Layout(
        "VQA",
        '{"questions": [{"question_id", "question"}]}',
        lambda file: "questions" in file.mapping,
        lambda file: _question_rows(value_of(file.mapping, "questions", file.path, list), "question", file.path),
    ),
)
