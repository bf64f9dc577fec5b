import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.dataset.joins import FieldIndex, MappedRows, SelectedRows
from mllm.dataset.rows import ListRows
from mllm.errors import DataError

KEYS = st.one_of(
    st.lists(st.integers(min_value=-(2**70), max_value=2**70), max_size=30),
    st.lists(st.text(max_size=3), max_size=30),
)


@given(KEYS)
def test_every_row_is_found_by_its_value(keys):
    rows = ListRows([{"key": key, "number": number} for number, key in enumerate(keys)], "table")
    index = FieldIndex(rows, "key")
    for key in keys:
        assert [row["number"] for row in index.find_all(key)] == [n for n, other in enumerate(keys) if other == key]
        assert index.find(key, "here")["number"] == keys.index(key)
    assert index.all_positions().tolist() == list(range(len(keys)))
    assert index.first_positions().tolist() == sorted({keys.index(key) for key in keys})


def test_rows_of_values_that_another_table_has():
    images = FieldIndex(ListRows([{"id": value} for value in (5, 3, 9)], "images"), "id")
    captions = FieldIndex(ListRows([{"image_id": value} for value in (3, 9, 9, 4)], "captions"), "image_id")
    assert images.positions_in(captions).tolist() == [1, 2]


def test_rows_that_are_not_kept_are_not_found():
    rows = ListRows([{"key": 1, "good": True}, {"key": 2, "good": False}], "table")
    index = FieldIndex(rows, "key", lambda row: row["good"])
    assert 1 in index
    assert 2 not in index
    assert index.all_positions().tolist() == [0]


def test_a_value_that_is_absent_is_named_with_its_asker():
    index = FieldIndex(ListRows([{"key": "a"}], "table"), "key")
    with pytest.raises(DataError, match=r"rows\[3\]: key 'b' is not in"):
        index.find("b", "rows[3]")
    with pytest.raises(DataError, match=r"rows\[3\]: key 1 is not in"):
        index.find(1, "rows[3]")


@pytest.mark.parametrize("value", [1.5, None, True, [1]])
def test_a_value_that_cannot_be_a_key_is_named(value):
    with pytest.raises(DataError, match=r"table\[0\]: field 'key' must be a whole number or text"):
        FieldIndex(ListRows([{"key": value}], "table"), "key")


def test_mapped_rows_keep_their_place_and_name_a_wrong_field():
    rows = MappedRows(ListRows([{"a": 1}, {"a": "x"}], "table"), lambda row: {"b": row["a"] + 1})
    assert dict(rows[0]) == {"b": 2}
    assert rows[0].place == "table[0]"
    with pytest.raises(DataError, match=r"table\[1\]: a field is not as expected \(TypeError"):
        rows[1]


def test_selected_rows_are_those_that_are_kept():
    rows = SelectedRows.where(ListRows([{"n": n} for n in range(6)], "table"), lambda row: row["n"] % 2 == 1)
    assert [row["n"] for row in rows] == [1, 3, 5]
    assert rows[2].place == "table[5]"
    with pytest.raises(IndexError):
        rows[3]
