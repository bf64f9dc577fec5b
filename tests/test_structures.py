"""Item, turn, target, frame, record: hand-worked cases, and every DataError there is."""

import json
import re
from dataclasses import asdict

import pytest
from PIL import Image

from mllm.errors import DataError
from mllm.structures import Frame, Item, Record, Target, Turn, check_item, split_placeholders

IMAGE = Image.new("RGB", (200, 100))
ASK, SAY = {"from": "human", "value": "<image> where?"}, {"from": "gpt", "value": "here"}


def row(**changes):
    return {"image": IMAGE, "conversations": [ASK, SAY], **changes}


def boxed(text="here <boxes>", boxes=((10, 20, 30, 40),), sequence=((0,),), **changes):
    """A row whose answer points at the boxes."""
    answer = {"from": "gpt", "value": text, "boxes_seq": [list(one) for one in sequence]}
    return row(target={"boxes": [list(box) for box in boxes], **changes}, conversations=[ASK, answer])


def test_an_item_from_its_dictionary():
    answer = {"from": "gpt", "value": "<boxes> <points>", "boxes_seq": [[0]], "points_seq": [[1, 0]]}
    item = Item.from_dict(
        row(
            conversations=[ASK, answer],
            target={"boxes": [[1, 2, 3, 4]], "points": [[5, 6], [7, 8]]},
            truth={"a": 1},
            meta={"b": 2},
        )
    )
    assert item == Item(
        images=[IMAGE],
        conversations=[Turn("human", "<image> where?"), Turn("gpt", "<boxes> <points>", [[0]], [[1, 0]])],
        target=Target(boxes=[(1.0, 2.0, 3.0, 4.0)], points=[(5.0, 6.0), (7.0, 8.0)]),
        truth={"a": 1},
        meta={"b": 2},
    )
    check_item(item)


@pytest.mark.parametrize(("key", "value", "count"), [("image", None, 0), ("images", [IMAGE] * 2, 2), ("images", [], 0)])
def test_images_are_a_list_inside(key, value, count):
    assert len(Item.from_dict({key: value, "conversations": [ASK]}).images) == count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": IMAGE, "conversation": [ASK]}, "'conversation' must be called 'conversations'"),
        (row(pictures=1), "item: unknown key 'pictures'"),
        (row(conversations=[]), "must be a list of at least one turn"),
        (row(conversations="hello"), "must be a list of at least one turn"),
        (row(conversations=None), "must be a list of at least one turn"),
        (row(conversations=["hello"]), r"conversations\[0\]: a turn is an object"),
        (row(conversations=[{**ASK, "text": "x"}]), r"conversations\[0\]: unknown key 'text'"),
        (row(conversations=[ASK, {"from": "gpt"}]), r"conversations\[1\]: 'value' must be text, got None"),
        (row(conversations=[{**ASK, "value": "a \ud800"}]), r"\[0\]: the character 2 of .value. is half"),
        (row(conversations=[{"from": 1, "value": "x"}]), r"conversations\[0\]: 'from' must be text, got 1"),
        (row(conversations=[{**ASK, "boxes_seq": [0]}]), r"conversations\[0\]\.boxes_seq: expected a list of lists"),
        (row(conversations=[{**ASK, "points_seq": [[1.5]]}]), r"\.points_seq: expected a list of lists"),
        (row(conversations=[{**ASK, "boxes_seq": [[True]]}]), r"\.boxes_seq: expected a list of lists"),
        (row(target={"box": []}), "target: unknown key 'box'"),
        (row(target={"boxes": [[1, 2, 3]]}), r"target\.boxes\[0\]: expected 4 finite numbers in pixels"),
        (row(target={"boxes": [[1, 2, 3, "4"]]}), r"target\.boxes\[0\]: expected 4 finite"),
        (row(target={"boxes": [[1, 2, 3, float("inf")]]}), r"target\.boxes\[0\]: expected 4 finite"),
        (row(target={"boxes": [[1, 2, 3, float("nan")]]}), r"target\.boxes\[0\]: expected 4 finite"),
        (row(target={"points": [[1, 2], 3]}), r"target\.points\[1\]: expected 2 finite"),
    ],
)
def test_a_wrong_shape_is_named(given, message):
    with pytest.raises(DataError, match=message):
        Item.from_dict(given)


TWO = {"images": [IMAGE, IMAGE], "conversations": [{"from": "human", "value": "<image><image>"}]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (row(conversations=[SAY]), r"conversations\[0\]: from 'gpt', expected 'human'"),
        (row(conversations=[ASK, ASK]), r"conversations\[1\]: from 'human', expected 'gpt'"),
        (boxed("here", sequence=[[0]]), r"conversations\[1\]: 0 <boxes> in 'here' but 1 lists in 'boxes_seq'"),
        (boxed("<boxes><boxes>"), "2 <boxes> in '<boxes><boxes>' but 1 lists"),
        (
            row(conversations=[{"from": "human", "value": "<image> <points>"}]),
            "1 <points> .* but 0 lists in 'points_seq'",
        ),
        (boxed(sequence=[[]]), r"conversations\[1\]\.boxes_seq: an empty list"),
        (boxed(sequence=[[1]]), "boxes_seq: index 1 but the target has 1 boxes"),
        (boxed(sequence=[[-1]]), "index -1 but the target has 1 boxes"),
        ({"conversations": [ASK]}, "1 <image> in the human turns but the item has no image"),
        ({"images": [IMAGE, IMAGE], "conversations": [ASK]}, "2 images but 1 <image>"),
        (row(conversations=[{"from": "human", "value": "<image><image>"}]), "1 images but 2 <image>"),
        ({"conversations": [{"from": "human", "value": "x"}], "target": {"boxes": [[1, 2, 3, 4]]}}, "has no image"),
        ({**TWO, "target": {"boxes": [[1, 2, 3, 4]]}}, r"target\.image_index: 0 entries for 1 boxes on 2 images"),
        ({**TWO, "target": {"points": [[1, 2]]}}, r"target\.points_image_index: 0 entries for 1 points"),
        ({**TWO, "target": {"boxes": [[1, 2, 3, 4]], "image_index": [2]}}, r"target\.boxes\[0\]: image 2 of 2"),
        (boxed(boxes=[[30, 20, 10, 40]]), "right or bottom lies before left or top.*xywh"),
        (boxed(boxes=[[10, 40, 30, 20]]), "right or bottom lies before left or top"),
        (boxed(boxes=[[0.1, 0.2, 0.3, 0.4]]), "looks normalised; expected pixels of the 200x100 image"),
        (boxed(boxes=[[10, 20, 202, 40]]), "outside the 200x100 image.*xywh"),
        (boxed(boxes=[[-2, 20, 30, 40]]), "outside the 200x100 image"),
        (row(target={"points": [[10, 102]]}), r"target\.points\[0\] = \[10.0, 102.0\]: outside the 200x100 image"),
    ],
)
def test_an_inconsistent_item_is_named(given, message):
    with pytest.raises(DataError, match=message):
        check_item(Item.from_dict(given))


@pytest.mark.parametrize(
    "given",
    [
        row(conversations=[{"from": "human", "value": "no placeholder"}]),  # one image may go unmentioned
        boxed(boxes=[[-1, 0, 201, 101]]),  # one pixel of rounding
        boxed(boxes=[[0, 0, 0, 0]]),
        boxed(boxes=[[5, 5, 5, 9]]),
        {"conversations": [{"from": "human", "value": "text alone"}, SAY]},
        {**TWO, "target": {"boxes": [[1, 2, 3, 4]], "image_index": [1]}},
    ],
)
def test_what_is_allowed_at_the_edge(given):
    check_item(Item.from_dict(given))


def test_a_frame_there_and_back():
    """200x100 on a 200x200 canvas, 50 above: y = 100 lies at 150 of 200; halved to 100x100, 25 above."""
    plain = Frame((200, 100), (200, 200), offset=(0.0, 50.0))
    assert plain.normalize((0, 0, 200, 100)) == (0.0, 0.25, 1.0, 0.75)
    assert plain.denormalize((0.0, 0.25, 1.0, 0.75)) == (0.0, 0.0, 200.0, 100.0)
    halved = Frame((200, 100), (100, 100), offset=(0.0, 25.0), scale=(0.5, 0.5))
    assert halved.normalize((100, 50)) == (0.5, 0.5)
    assert halved.denormalize((0.5, 0.5)) == (100.0, 50.0)
    assert plain.normalize((-10, 170)) == (0.0, 1.0)
    assert Frame.from_dict(json.loads(json.dumps(asdict(halved)))) == halved


def test_a_record_through_json():
    record = Record(3, "a", "pred", target="t", truth={"boxes": [[1, 2, 3, 4]]}, frames=[Frame((2, 1), (2, 2))])
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_short_record_and_one_with_more():
    assert Record.from_dict({"index": 3, "pred": "x"}) == Record(3, "3", "x")
    assert Record.from_dict({"index": 3, "pred": "x", "score": 1, "meta": {"a": 2}}).meta == {"a": 2, "score": 1}
    with pytest.raises(DataError, match="'pred' is missing"):
        Record.from_dict({"index": 3})


def test_placeholders_become_own_pieces():
    assert split_placeholders("a <image> b<boxes>", "<image>", "<boxes>") == ["a ", "<image>", " b", "<boxes>"]
    assert split_placeholders("", "<image>") == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"boxes": [[1, 2, 3, 4]], "image_index": ["0"]}, "target.image_index: expected a list of indices"),
        ({"boxes": [[1, 2, 3, 4], [1, 2, 3, 5]], "image_index": [0]}, "target.image_index: 1 entries for 2 boxes"),
        ({"points": [[1, 2]], "points_image_index": [0, 0]}, "target.points_image_index: 2 entries for 1 points"),
    ],
)
def test_owners_of_boxes_and_points_are_indices_one_each(target, message):
    with pytest.raises(DataError, match=re.escape(message)):
        check_item(Item.from_dict(row(target=target)))
