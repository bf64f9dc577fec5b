"""The drawn world keeps its promises: unique expressions, needed relations, tight boxes, splits that share nothing."""

import hashlib
import random
from itertools import chain

import numpy as np
import pytest

from mllm.dataset.drawn import DrawnPointing, DrawnREC, DrawnREG
from mllm.dataset.drawn_expressions import (
    Expression,
    Phrase,
    attribute_expressions,
    choose_expressions,
    evaluate,
    make_scene,
    relational_expressions,
    shares_attribute,
)
from mllm.dataset.drawn_scenes import (
    DrawnCaption,
    DrawnConversation,
    DrawnDetection,
    DrawnGroundedCaption,
    DrawnRegionCaption,
    DrawnVQA,
)
from mllm.dataset.drawn_world import KINDS, Scene, Shape, _stencil
from mllm.errors import ConfigError
from mllm.structures import Item, check_item

SCENES = 300
DATA_SETS = [
    DrawnREC(9),
    DrawnREC(9, turns=3, wrong_expression=True),
    DrawnREG(9, turns=2),
    DrawnPointing(9, turns=3),
    DrawnCaption(9),
    DrawnGroundedCaption(9, turns=2),
    DrawnRegionCaption(9),
    DrawnDetection(9, turns=2),
    DrawnVQA(9, turns=6),
    DrawnConversation(9, [{"type": "DrawnREG"}, {"type": "DrawnVQA", "turns": 3}], keep=3),
]


def scenes(split="test", count=SCENES):
    return [make_scene(0, split, index) for index in range(count)]


def overlap(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def test_scenes_have_at_least_four_objects_apart_from_each_other_in_pictures_of_many_sizes():
    for scene in scenes():
        assert 4 <= len(scene.shapes) <= 6
        boxes = [shape.box for shape in scene.shapes]
        assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    sizes = {scene.image_size for scene in scenes()}
    assert len(sizes) > SCENES // 2
    assert sum(width != height for width, height in sizes) > 0.9 * len(sizes)


def test_boxes_are_tight_to_the_drawn_pixels():
    for scene in scenes(count=100):
        pixels = np.asarray(scene.draw()).astype(int)
        drawn = (pixels != np.array(scene.background)).any(axis=2)
        for shape in scene.shapes:
            x0, y0, x1, y1 = shape.box
            around = drawn[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1]
            rows, columns = np.flatnonzero(around.any(axis=1)), np.flatnonzero(around.any(axis=0))
            assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (1, 1, x1 - x0 + 1, y1 - y0 + 1)
            drawn[y0:y1, x0:x1] = False
        assert not drawn.any()


@pytest.mark.parametrize("kind", KINDS)
def test_edges_are_anti_aliased_where_they_slant(kind):
    levels = set(np.unique(np.asarray(_stencil(kind, 21, 21))))
    assert {0, 255} & levels
    assert (len(levels) > 4) == (kind not in ("square", "cross"))


def test_every_expression_has_one_referent_and_a_distractor_of_its_color_or_shape():
    for scene in scenes():
        pools = chain(attribute_expressions(scene).values(), relational_expressions(scene).values())
        for expression in chain.from_iterable(pools):
            assert evaluate(expression, scene) == [expression.referent], (scene.key, str(expression))
            assert shares_attribute(scene, expression.referent), (scene.key, str(expression))


def test_relational_expressions_need_their_relation():
    for scene in scenes():
        for expression in chain.from_iterable(relational_expressions(scene).values()):
            without = evaluate(Expression(expression.referent, expression.phrase), scene)
            assert expression.referent in without
            assert len(without) >= 2


def test_at_least_forty_percent_of_the_expressions_are_relational():
    for turns in (1, 4):
        categories = [
            expression.category
            for scene in scenes(count=1000)
            for expression in choose_expressions(scene, random.Random(scene.key), turns)
        ]
        assert 0.4 <= categories.count("relational") / len(categories) <= 0.6


def test_meaning_worked_out_by_hand():
    # Two small red circles left (x 15) and right (x 85) of a large blue square (x 50); a red square above all.
    def shape(kind, color, size, x, y, side):
        return Shape(kind, color, size, (x, y, x + side, y + side), (0, 0, 0))

    scene = Scene(
        "hand",
        (100, 100),
        (255, 255, 255),
        (
            shape("circle", "red", "small", 5, 60, 20),
            shape("square", "blue", "large", 30, 55, 40),
            shape("square", "red", "small", 40, 5, 20),
            shape("circle", "red", "small", 75, 60, 20),
        ),
    )
    circle, blue = Phrase(None, None, "circle"), Phrase(None, "blue", None)
    assert evaluate(Expression(0, circle), scene) == [0, 3]
    assert evaluate(Expression(0, circle, "left of", blue), scene) == [0]
    assert evaluate(Expression(2, Phrase(None, "red", None), "above", blue), scene) == [0, 2, 3]
    assert str(Expression(3, circle, "right of", blue)) == "the circle right of the blue shape"
    texts = {str(e) for e in chain.from_iterable(relational_expressions(scene).values())}
    assert "the small red circle left of the large square" in texts
    assert not any("above the red" in text for text in texts)


@pytest.mark.parametrize("dataset", DATA_SETS, ids=lambda dataset: type(dataset).__name__)
def test_items_are_sound_and_depend_on_index_and_epoch_alone(dataset):
    for index in range(len(dataset)):
        item = dataset[index]
        check_item(Item.from_dict(item))
        again = dataset.item(index, 0)
        assert again["image"].tobytes() == item["image"].tobytes()
        assert {**again, "image": 0} == {**item, "image": 0}
        assert dataset.length_hint(index) == (sum(len(turn["value"]) for turn in item["conversations"]), 1)
    assert any(dataset.item(i, 1)["conversations"] != dataset[i]["conversations"] for i in range(len(dataset)))
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_splits_share_no_picture():
    def digests(split):
        return {hashlib.sha256(scene.draw().tobytes()).digest() for scene in scenes(split, 1000)}

    train, val, test = digests("train"), digests("val"), digests("test")
    assert len(train) == len(val) == len(test) == 1000
    assert not train & val
    assert not train & test
    assert not val & test


def test_another_seed_is_another_world():
    assert make_scene(0, "test", 3).draw().tobytes() != make_scene(1, "test", 3).draw().tobytes()


def test_wrong_expression_asks_for_another_object_and_keeps_the_truth():
    right, wrong = DrawnREC(60, split="test"), DrawnREC(60, split="test", wrong_expression=True)
    for index in range(60):
        a, b = right[index], wrong[index]
        assert a["truth"]["boxes"] == b["truth"]["boxes"]
        assert a["truth"]["expression"] != b["truth"]["expression"]
        assert b["truth"]["expression"] in b["conversations"][0]["value"]
        # The truth's box and the other ones are all objects of the picture, each once.
        scene = make_scene(0, "test", index)
        for truth in (a["truth"], b["truth"]):
            assert sorted(truth["boxes"] + truth["other_boxes"]) == sorted(list(shape.box) for shape in scene.shapes)


def test_pointing_truth_lies_in_the_box_of_its_object():
    for index in range(30):
        truth = DrawnPointing(30)[index]["truth"]
        (x, y), (x0, y0, x1, y1) = truth["points"][0], truth["boxes"][0]
        assert x0 < x < x1
        assert y0 < y < y1


def test_turns_are_drawn_apart_and_show_the_picture_once():
    again = 0
    for index in range(60):
        item = DrawnREC(60, turns=3)[index]
        assert len(item["conversations"]) == 6
        assert [turn["value"].count("<image>") for turn in item["conversations"]] == [1, 0, 0, 0, 0, 0]
        again += len(item["target"]["boxes"]) < 3
    # Of three draws from some five objects two agree in about half of the conversations.
    assert 12 < again < 48


def test_later_questions_are_whole_sentences():
    sentences = {sentence.removeprefix("<image> ") for sentence in DrawnREC(1).templates.sentences}
    for index in range(60):
        item = DrawnREC(60, turns=3)[index]
        for turn, truth in zip(item["conversations"][2::2], [None, item["truth"]], strict=True):
            if truth:
                assert turn["value"].replace(truth["expression"], "<expr>") in sentences
            assert "In," not in turn["value"]
            assert not turn["value"].endswith(":")
    with pytest.raises(ConfigError, match="no question begins with <image>"):
        DrawnREC(3, turns=2, questions=["Where is <expr> in <image>?"])


def test_an_answer_may_repeat_the_expression():
    plain, echo = DrawnPointing(5), DrawnPointing(5, answer="<expr> <points>")
    for index in range(5):
        expression = plain[index]["truth"]["expression"]
        assert plain[index]["conversations"][1]["value"] == "<points>"
        assert echo[index]["conversations"][1]["value"] == f"{expression} <points>"
    with pytest.raises(ConfigError, match="expected <points> to stand once"):
        DrawnPointing(5, answer="<boxes>")


def test_distinct_scenes_share_nothing_and_shuffled_captions_keep_names_with_boxes():
    captions = DrawnGroundedCaption(40, objects=(3, 5), distinct=True, shuffled=True)
    moved = 0
    for index in range(40):
        scene = make_scene(0, "train", index, (3, 5), True)
        colors, kinds = {s.color for s in scene.shapes}, {s.kind for s in scene.shapes}
        assert len(colors) == len(kinds) == len(scene.shapes)
        item = captions[index]
        said = item["conversations"][1]["value"].removesuffix(".").replace(" and ", ", ").split(", ")
        boxes = [item["target"]["boxes"][i[0]] for i in item["conversations"][1]["boxes_seq"]]
        expected = {tuple(shape.box): f"a {shape.name} <boxes>" for shape in scene.shapes}
        assert {tuple(box): name for box, name in zip(boxes, said, strict=True)} == expected
        moved += boxes != sorted(boxes, key=lambda box: (box[0] + box[2]) / 2)
    assert moved > 20
    with pytest.raises(ConfigError, match="distinct needs objects of at most 5"):
        DrawnGroundedCaption(4, distinct=True)


def test_short_names_fit_their_object_alone():
    captions = DrawnGroundedCaption(40, shuffled=True, short_names=1.0)
    short = 0
    for index in range(40):
        scene = make_scene(0, "train", index)
        item = captions[index]
        said = item["conversations"][1]["value"].removesuffix(".").replace(" and ", ", ").split(", ")
        for name, (box,) in zip(said, item["conversations"][1]["boxes_seq"], strict=True):
            words = name.removeprefix("a ").removesuffix(" <boxes>").replace(" shape", "").split()
            fitting = [list(s.box) for s in scene.shapes if set(words) <= set(s.name.split())]
            assert item["target"]["boxes"][box] in fitting
            assert len(words) == 3 or len(fitting) == 1
            short += len(words) < 3
    assert short > 40


def test_answers_about_numbers_and_presence_follow_from_the_scene():
    dataset = DrawnVQA(40, turns=8)
    seen = set()
    for index in range(40):
        scene = make_scene(0, "train", index)
        for exchange in dataset.exchanges(scene, random.Random(index)):
            seen.add(exchange.category)
            question, answer = exchange.truth["question"], exchange.answer
            if question.startswith("Is there a "):
                color, kind = question.removeprefix("Is there a ").removesuffix("?").split()
                assert answer == ("yes" if any((s.color, s.kind) == (color, kind) for s in scene.shapes) else "no")
    assert seen == {"attribute", "count", "presence", "relation"}


def test_a_wrong_count_stops():
    with pytest.raises(ConfigError, match="at least 1"):
        DrawnREC(0)
