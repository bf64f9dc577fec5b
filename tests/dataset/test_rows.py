import json
import multiprocessing
import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.dataset.row_index import scan_array
from mllm.dataset.rows import JsonlRows, JsonRows, open_rows
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


def array_file(tmp_path, text, name="a.json"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_array_is_read_row_by_row_whatever_its_strings_hold(tmp_path):
    tricky = [
        {"x": 'quotes " and \\ and \\" and ] } [ {', "n": [[1, 2], [3]], "d": {"e": {}}},
        {"x": "é, \u2028 and a line\nbreak"},
        {},
        {"x": "last"},
    ]
    for text in (json.dumps(tricky), json.dumps(tricky, indent=2, ensure_ascii=False), f"\ufeff{json.dumps(tricky)}"):
        rows = JsonRows(array_file(tmp_path, text))
        assert [dict(row) for row in rows] == tricky
    assert rows[3].place == f"{tmp_path}/a.json[3]"
    assert rows[-1]["x"] == "last"


def test_an_array_under_a_key_is_found_among_others(tmp_path):
    content = {
        "info": {"annotations": [{"id": 7}]},
        "images": [{"id": 1, "annotations": [1, 2]}],
        "note": '"annotations": [',
        "annotations": [{"id": 2}, {"id": 3}],
    }
    rows = JsonRows(array_file(tmp_path, json.dumps(content)), "annotations")
    assert [row["id"] for row in rows] == [2, 3]
    assert rows[1].place.endswith("a.json:annotations[1]")


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('{"a": 1}', None, "expected a JSON array"),
        ('{"a": [{}]}', "b", "expected a JSON object with an array under 'b'"),
        ('[{"a": 1}, {"a": 2}', None, r"the array does not end \(after row 2\)"),
        ('[{"a": 1}, 5, {"a": 2}]', None, r"a\.json\[1\]: expected a JSON object, got '5"),
        ('[[1], {"a": 2}]', None, r"a\.json\[0\]: expected a JSON object, got '\['"),
        ("", None, "expected a JSON array"),
    ],
)
def test_what_is_no_array_of_objects_is_named(tmp_path, text, key, message):
    with pytest.raises(DataError, match=message):
        JsonRows(array_file(tmp_path, text), key)


def test_a_broken_element_is_named_with_its_place(tmp_path):
    rows = JsonRows(array_file(tmp_path, '[{"a": 1}, {"a" 2}]'))
    assert rows[0]["a"] == 1
    with pytest.raises(DataError, match=r"a\.json\[1\]:6: broken JSON"):
        rows[1]


def test_a_file_is_read_as_what_it_is_not_as_it_is_called(tmp_path):
    assert isinstance(open_rows(array_file(tmp_path, '\n [{"a": 1}]', "x.jsonl")), JsonRows)
    assert isinstance(open_rows(array_file(tmp_path, '{"a": 1}\n{"a": 2}', "x.json")), JsonlRows)


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setenv("MLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mllm.dataset.row_index.CACHED_FROM_BYTES", 10)
    return tmp_path


@pytest.mark.parametrize(("kind", "text"), [(JsonlRows, '{"a": 1}\n{"a": 2}\n'), (JsonRows, '[{"a": 1}, {"a": 2}]')])
def test_the_index_of_a_large_file_is_kept_elsewhere_and_used_again(large, monkeypatch, kind, text):
    path = array_file(large, text, "data.json")
    assert [row["a"] for row in kind(path)] == [1, 2]
    assert sorted(entry.name for entry in large.iterdir()) == ["cache", "data.json"]
    monkeypatch.setattr(kind, "scan", lambda *_: pytest.fail("the file was scanned again"))
    again = kind(path)
    assert [row["a"] for row in again] == [1, 2]
    assert isinstance(again._index, np.memmap)
    assert [row["a"] for row in pickle.loads(pickle.dumps(again))] == [1, 2]


def test_a_changed_file_is_indexed_anew(large):
    path = array_file(large, '{"a": 1}\n{"a": 2}\n', "data.jsonl")
    assert len(JsonlRows(path)) == 2
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    assert [row["a"] for row in JsonlRows(path)] == [1, 2, 3]


def test_a_damaged_index_is_made_again(large):
    path = array_file(large, '{"a": 1}\n{"a": 2}\n', "data.jsonl")
    JsonlRows(path)
    (kept,) = (large / "cache").iterdir()
    kept.write_bytes(b"damaged")
    assert len(JsonlRows(path)) == 2


def test_forked_workers_read_their_own_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"x": i, "pad": "y" * (i % 97)}) + "\n" for i in range(2000)))
    rows = JsonlRows(path)
    assert rows[5]["x"] == 5
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(partial(_value, rows), range(2000), chunksize=50)
    assert found == list(range(2000))


def _value(rows, index):
    return rows[index]["x"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=3), max_size=6),
    indent=st.none() | st.just(1),
)
def test_any_array_reads_as_json_reads_it(rows, indent):
    index = scan_array(json.dumps(rows, indent=indent).encode(), None, "x")
    text = json.dumps(rows, indent=indent).encode()
    pieces = [text[a:b].rstrip(b", \n") for a, b in zip(index[0, :-1], index[0, 1:], strict=True)]
    assert [json.loads(piece) for piece in pieces] == rows
