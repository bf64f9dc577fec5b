"""Where a row stands, what its faults are called, and how problems are counted."""

import json

import pytest
from PIL import Image

from mllm.dataset.joins import MappedRows, SelectedRows
from mllm.dataset.mixture import sources_of
from mllm.dataset.problems import FIRST, KINDS, Problem, Tally, kind_of
from mllm.dataset.row_checks import check_row, fits_as_xywh, place_of
from mllm.dataset.rows import JsonlRows, ListRows
from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import Item

TURNS = [{"from": "human", "value": "a ?"}, {"from": "gpt", "value": "b"}]


class Holder:
    """A data set over ``rows`` whose items are given."""

    def __init__(self, rows=None, item=None):
        if rows is not None:
            self.rows = rows
        self.given = item

    def __getitem__(self, index):
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 0}\n\n{"n": 1}\n{"n":\n')
    return JsonlRows(tmp_path / "a.jsonl")


def test_a_place_is_found_through_changed_and_chosen_rows_even_where_json_is_broken(lines):
    rows = SelectedRows(MappedRows(lines, dict), [2, 1])
    assert place_of(Holder(rows), 0) == f"{lines.path}:4"
    assert place_of(Holder(rows), 1) == f"{lines.path}:3"
    assert place_of(Holder(ListRows([{"a": 1}], "joined")), 0) == "joined[0]"
    assert place_of(Holder(), 5) == "Holder[5]"


def test_kind_of_an_error_is_that_of_its_cause():
    inner = DataError("gone", kind="missing file")
    outer = DataError("a:1: gone")
    outer.__cause__ = inner
    assert kind_of(outer) == "missing file"
    assert kind_of(DataError("x")) == "unreadable row"
    assert kind_of(DataError("x"), "supervision") == "supervision"
    outer.__cause__ = ValueError("x")
    assert kind_of(outer) == "unreadable row"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (ConfigError("exif='maybe'"), "crash"),
        (KeyError("x"), "crash"),
        ({"image": "a.png", "conversations": TURNS}, "crash"),
        (DataError("row"), "unreadable row"),
        ({"conversations": []}, "unreadable row"),
    ],
)
def test_what_no_run_survives_is_told_from_what_it_may_replace(given, kind):
    row = check_row(Holder(item=given), 3)
    assert [(one.kind, one.place.startswith("Holder[3]")) for one in row.problems] == [(kind, True)]
    assert row.failed
    assert row.item is None


def test_a_crash_over_undecoded_pixels_is_what_opening_the_image_would_have_told(tmp_path):
    """The data set looks at pixels that a complete end mark had promised."""
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[1000:2000] = bytes(1000)
    (tmp_path / "a.png").write_bytes(content)
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "a.png", "conversations": TURNS}) + "\n")
    dataset = DATASETS.build({"type": "ItemJsonl", "path": str(tmp_path / "a.jsonl"), "image_root": str(tmp_path)})
    opening = dataset.image
    dataset.image = lambda name: opening(name).convert("L").convert("RGB")
    (problem,) = check_row(dataset, 0).problems
    assert (problem.kind, problem.place) == ("broken image", f"{tmp_path}/a.jsonl:1:image")


def test_items_may_come_as_records():
    row = check_row(Holder(item=Item.from_dict({"conversations": TURNS, "meta": {"place": "there:1"}})), 0)
    assert (row.place, row.problems, row.failed) == ("there:1", [], False)


def test_a_box_reads_as_xywh_only_where_it_stays_in_the_image():
    """640x480; as xywh the box ends at (400 + 100, 300 + 80), then at (600 + 100, …)."""
    assert fits_as_xywh((400, 300, 100, 80), (640, 480))
    assert not fits_as_xywh((600, 300, 100, 80), (640, 480))


def test_a_row_counts_once_for_a_kind_and_the_first_places_stay():
    tally, later = Tally(), Tally()
    tally.add_row([Problem("empty box", "a:1:x", "first"), Problem("empty box", "a:1:y", "second")])
    for number in range(2, 12):
        later.add_row([Problem("empty box", f"a:{number}", ""), Problem("turns", f"a:{number}", "")])
    tally.merge(later)
    assert tally.rows == {"empty box": 11, "turns": 10}
    assert [one.place for one in tally.first["empty box"]] == ["a:1:x", "a:2", "a:3", "a:4", "a:5"]
    assert len(tally.first["turns"]) == FIRST
    assert tally.kinds == ["turns", "empty box"]


def test_errors_stand_before_warnings():
    severities = [kind.severity for kind in KINDS.values()]
    assert severities == sorted(severities)


def _items(tmp_path, name, count):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"conversations": TURNS}) + "\n" for _ in range(count)))
    return {"type": "ItemJsonl", "path": str(path)}


def test_rows_that_no_epoch_sees_are_not_chosen(tmp_path):
    """The first 4 rows of 3 + 5: three of the one, one of the other; a shuffled mixture may reach them all."""
    parts = [_items(tmp_path, "a", 3), _items(tmp_path, "b", 5)]

    def chosen(mixture):
        cfg = {"type": "SubsetDataset", "dataset": mixture, "count": 4, "shuffle": False}
        rows = [source.chosen for source in sources_of(DATASETS.build(cfg))]
        return [None if one is None else one.tolist() for one in rows]

    assert chosen({"type": "ConcatDataset", "datasets": parts}) == [[0, 1, 2], [0]]
    assert chosen({"type": "ConcatDatasetWithShuffle", "datasets": parts}) == [None, None]
    assert chosen({"type": "RepeatDataset", "dataset": parts[1], "times": 2}) == [None]
    assert chosen(parts[1]) == [[0, 1, 2, 3]]
    inner = {"type": "SubsetDataset", "dataset": parts[1], "count": 4, "shuffle": False}
    nested = DATASETS.build({"type": "SubsetDataset", "dataset": inner, "portion": 0.5, "shuffle": False})
    assert next(sources_of(nested)).chosen.tolist() == [0, 1]
    assert next(sources_of(DATASETS.build(parts[0]))).chosen is None
