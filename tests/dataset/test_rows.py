import pickle

import pytest

from mllm.dataset.rows import JsonlRows
from mllm.errors import DataError


def test_rows_are_read_by_index_and_blank_lines_do_not_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": "é"}\n\n{"x": "b"}\n{"x": "c"}')  # no newline at the end
    rows = JsonlRows(path)
    assert [row["x"] for row in rows] == ["é", "b", "c"]
    assert rows[2].place == f"{path}:4"


def test_a_copy_in_another_process_reads_on(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n{"x": 2}\n')
    rows = JsonlRows(path)
    assert rows[0]["x"] == 1
    assert pickle.loads(pickle.dumps(rows))[1]["x"] == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"x": 1', ":2:8: broken JSON"),
        ("[1, 2]", ":2: expected a JSON object, got list"),
    ],
)
def test_a_broken_line_is_named_with_file_and_line(tmp_path, line, expected):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"x": 0}}\n{line}\n')
    with pytest.raises(DataError) as caught:
        JsonlRows(path)[1]
    assert str(caught.value).startswith(f"{path}{expected}")


def test_a_missing_field_names_row_and_field(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 0}\n')
    with pytest.raises(DataError, match=r"a.jsonl:1: field 'bbox' is missing; the row has x"):
        JsonlRows(path)[0]["bbox"]


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        JsonlRows(tmp_path / "none.jsonl")
