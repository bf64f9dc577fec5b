import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.dataset.object_rows import ObjectRows, scan_members
from mllm.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("objects")


@given(
    values=st.dictionaries(st.text(), VALUES, max_size=6),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    under=st.booleans(),
)
def test_members_are_those_that_json_reads(folder, values, indent, ascii_only, under):
    path = folder / "values.json"
    whole = {"meta": {"data": ["}"], "x": '"{'}, "data": values, "end": 1} if under else values
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    rows = ObjectRows(path, "data" if under else None)
    assert [rows.member(index) for index in range(len(rows))] == list(values.items())
    for key, value in values.items():
        row = rows.find(key)
        assert row["id"] == key
        if not isinstance(value, dict):
            assert row["value"] == value
    assert rows.find("no such key, ever") is None


def test_an_object_is_a_row_with_its_id_and_place(tmp_path):
    path = tmp_path / "o.json"
    path.write_text('\ufeff{"a": {"x": 1}, "b": "text"}')
    rows = ObjectRows(path)
    assert dict(rows[0]) == {"x": 1, "id": "a"}
    assert dict(rows[-1]) == {"value": "text", "id": "b"}
    assert rows[0].place == f"{path}[a]"
    with pytest.raises(IndexError):
        rows[2]


def test_a_copy_in_another_process_finds_the_same_rows(tmp_path):
    path = tmp_path / "o.json"
    path.write_text('{"a": [1], "b": [2]}')
    rows = ObjectRows(path)
    assert rows.find("b")["value"] == [2]
    assert pickle.loads(pickle.dumps(rows)).find("b")["value"] == [2]


def test_reading_a_member_reads_no_other(tmp_path):
    # The second value has the brackets of an object and is broken inside: only asking for it fails.
    path = tmp_path / "o.json"
    path.write_bytes(b'{"a": "good", "b": {"x": tru}}')
    rows = ObjectRows(path)
    assert rows.find("a")["value"] == "good"
    with pytest.raises(DataError, match=r"o.json\[1\]:1:13: broken JSON"):
        rows[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected a JSON object {id: …} at byte 0"),
        ("", "expected a JSON object {id: …} at byte 0"),
        ('{"a" 1}', "expected ':' at byte 5"),
        ('{"a": 1 "b": 2}', "expected ',' at byte 8"),
        ('{"a": "x', "the text that begins at byte 6 does not end"),
        ('{"a": [1, 2', "the value that begins at byte 6 does not end"),
        ('{"a": }', "expected a value at byte 6"),
        ('{"a": 1', "expected ',' at byte 7"),
    ],
)
def test_what_is_no_object_is_named(text, message):
    with pytest.raises(DataError) as caught:
        scan_members(text.encode(), None, "f.json")
    assert str(caught.value).startswith("f.json: ")
    assert message in str(caught.value)


def test_an_absent_key_is_named():
    with pytest.raises(DataError, match=r"f\.json: expected a JSON object with an object under 'data'"):
        scan_members(b'{"meta": {"data": {}}}', "data", "f.json")
