import json

import pytest
from dataset.examples_grounding import write_lines, write_point_qa_local, write_point_qa_visual7w

from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import Item, check_item


@pytest.fixture
def local(tmp_path):
    arguments = write_point_qa_local(tmp_path)

    def build(**options):
        return DATASETS.build({"type": "PointQALocal", **arguments, **options})

    return build


@pytest.fixture
def visual7w(tmp_path):
    arguments = write_point_qa_visual7w(tmp_path)

    def build(**options):
        return DATASETS.build({"type": "PointQAVisual7W", **arguments, **options})

    return build


def test_the_point_stands_behind_the_question(local):
    # Line 1: "What colour is it? ", point [30, 40], bbox [10, 20, 50, 60], answer "red".
    item = local()[0]
    assert item["conversations"] == [
        {"from": "human", "value": "<image>\nWhat colour is it? <points>", "points_seq": [[0]]},
        {"from": "gpt", "value": "The answer is red."},
    ]
    assert item["target"] == {"boxes": [[10, 20, 50, 60]], "points": [[30, 40]]}
    assert item["truth"] == {
        "question": "What colour is it?",
        "answers": ["red"],
        "boxes": [[10, 20, 50, 60]],
        "points": [[30, 40]],
    }


def test_the_box_may_stand_for_the_point(local):
    human = local(ask_by="box")[0]["conversations"][0]
    assert human == {"from": "human", "value": "<image>\nWhat colour is it? <boxes>", "boxes_seq": [[0]]}


def test_either_is_drawn_by_epoch(local):
    dataset = local(ask_by="either")
    kinds = {"points_seq" in dataset.item(0, epoch)["conversations"][0] for epoch in range(30)}
    assert kinds == {True, False}
    for epoch in range(5):
        check_item(Item.from_dict(dataset.item(0, epoch)))


def test_candidates_are_listed_and_the_right_box_answers(visual7w):
    # The right one is [100, 50, 150, 90], the third candidate of the file.
    item = visual7w(shuffle=False, questions="<image> <question>")[0]
    question = "Which object can be opened? Candidates: <boxes> <boxes> <boxes> <boxes> Answer with a box."
    assert item["conversations"] == [
        {"from": "human", "value": f"<image> {question}", "boxes_seq": [[0], [1], [2], [3]]},
        {"from": "gpt", "value": "The answer is <boxes> .", "boxes_seq": [[2]]},
    ]
    assert item["truth"]["boxes"] == [[100, 50, 150, 90]]
    assert item["truth"]["answer_index"] == 2


def test_candidates_are_shuffled_and_the_answer_follows(visual7w):
    dataset = visual7w()
    places = set()
    for epoch in range(60):
        item = dataset.item(0, epoch)
        ((right,),) = item["conversations"][1]["boxes_seq"]
        assert item["target"]["boxes"][right] == [100, 50, 150, 90]
        assert item["truth"]["candidates"][item["truth"]["answer_index"]] == [100, 50, 150, 90]
        places.add(right)
    assert places == {0, 1, 2, 3}


def test_the_answer_may_be_a_point(visual7w):
    item = visual7w(answer_with="point")[0]
    assert item["conversations"][0]["value"].endswith("Answer with a point.")
    assert item["conversations"][1] == {"from": "gpt", "value": "The answer is <points> .", "points_seq": [[0]]}
    assert item["target"]["points"] == [[125, 70]]
    check_item(Item.from_dict(item))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": [1, 1, 2, 2]}, r"field 'answer' \[1, 1, 2, 2\] is none of the candidates"),
        ({"candidates": []}, "field 'candidates' must be a list of boxes"),
        ({"candidates": [[1, 2, 3]]}, "field 0 must be four numbers"),
        ({"point": [1]}, r"field 'point' must be two numbers, got \[1\]"),
        ({"file_path": "b.jpg"}, "b.jpg: no such file"),
    ],
)
def test_a_wrong_line_is_named(visual7w, tmp_path, change, message):
    path = tmp_path / "v7w.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    write_lines(path, [{**row, **change}])
    with pytest.raises(DataError, match=r"v7w.jsonl:1.*" + message):
        visual7w()[0]


def test_wrong_options_are_errors(local, visual7w):
    with pytest.raises(ConfigError, match="PointQALocal: ask_by='points'; did you mean 'point'"):
        local(ask_by="points")
    with pytest.raises(ConfigError, match="PointQAVisual7W: answer_with='text'"):
        visual7w(answer_with="text")
