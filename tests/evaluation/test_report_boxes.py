import pytest

from mllm.evaluation.box_errors import KINDS, BoxAnswer, box_answers, count_kinds
from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

TRUTH, OTHER = (10, 10, 50, 50), (60, 60, 90, 90)


@pytest.mark.parametrize(
    ("predicted", "kind"),
    [
        (None, "not parsed"),
        ((10, 10, 50, 30), "right"),  # half of the truth: IoU 0.5
        ((10, 10, 50, 29.9), "loose box"),
        ((10, 10, 50, 14), "loose box"),  # 160 of 1600: IoU 0.1
        ((10, 10, 50, 13.9), "miss"),
        ((60, 60, 90, 75), "wrong instance"),  # half of the other object
        ((60, 60, 90, 74), "miss"),
        ((70, 10, 90, 30), "miss"),
        ((50, 50, 10, 10), "miss"),  # inverted: no area
    ],
)
def test_every_answer_is_of_one_kind(predicted, kind):
    assert BoxAnswer(predicted, TRUTH, [OTHER]).kind == kind
    counts = count_kinds([BoxAnswer(predicted, TRUTH, [OTHER])])
    assert counts == {**dict.fromkeys(KINDS, 0), kind: 1}


def test_exchanged_coordinates_are_told_from_a_miss():
    assert BoxAnswer((60, 10, 90, 30), (10, 60, 30, 90), []).kind == "x, y swapped"
    assert BoxAnswer((60, 10, 90, 30), (60, 10, 90, 30), []).kind == "right"


def test_coordinates_are_exchanged_on_the_canvas_on_which_they_were_written():
    # A 200 x 100 picture in the middle of a 200 x 200 canvas. The true box reaches from 0.1 to 0.3 across and from 0.55
    # to 0.65 down the canvas; exchanged it reaches from 110 to 130 across the picture and, 50 being above it, from -30
    # to 10 down.
    frame = Frame((200, 100), (200, 200), (0, 50))
    answer = BoxAnswer((110, -30, 130, 10), (20, 60, 60, 80), None, frame)
    assert answer.kind == "x, y swapped"
    assert BoxAnswer(answer.predicted, answer.truth).kind == "miss"  # in pixels of the picture it would be none


def test_a_wrong_instance_is_told_only_where_the_others_are_known():
    assert "wrong instance" not in count_kinds([BoxAnswer(OTHER, TRUTH)])
    assert count_kinds([BoxAnswer(OTHER, TRUTH)])["miss"] == 1
    assert count_kinds([BoxAnswer(OTHER, TRUTH, [])])["wrong instance"] == 0


def test_answers_come_from_records_and_their_scores():
    evaluator = EVALUATORS.build({"type": "RECEvaluator"})
    evaluator.formatter = PlainFormatter()
    truth = {"boxes": [TRUTH], "other_boxes": [OTHER]}
    frame = Frame((100, 100), (100, 100))
    texts = ["[0.1,0.1,0.5,0.5]", "[0.6,0.6,0.9,0.9]", "none"]
    records = [Record(i, str(i), text, "", truth, [frame]) for i, text in enumerate(texts)]
    records.append(Record(3, "3", "", failure="the image is broken"))
    answers = box_answers(evaluator.evaluate(records), records)
    assert {index: one.kind for index, one in answers.items()} == {0: "right", 1: "wrong instance", 2: "not parsed"}
    assert [one.iou for one in answers.values()] == [pytest.approx(1.0), 0.0, 0.0]
    words = [Record(0, "0", "a", "", {"references": ["a"]})]
    assert box_answers(EVALUATORS.build({"type": "ExactMatchEvaluator"}).evaluate(words), words) == {}
