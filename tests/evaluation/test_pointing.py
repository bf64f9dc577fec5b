import pytest

from mllm.errors import DataError
from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

# 200x100 on a 200x200 square: text y 0.25 … 0.75 is the picture.
FRAME = Frame((200, 100), (200, 200), (0.0, 50.0))


def _score(kind, pred, truth):
    evaluator = EVALUATORS.build({"type": kind})
    evaluator.formatter = PlainFormatter()
    return evaluator.evaluate([Record(0, "0", pred, truth=truth, frames=[FRAME])])


@pytest.mark.parametrize(
    ("pred", "accuracy"),
    [
        ("[0.250,0.500]", 1),  # (50, 50), inside
        ("Here: [0.100,0.300] .", 1),  # (20, 10): the corner
        ("[0.400,0.650]", 1),  # (80, 80): the other corner
        ("[0.405,0.500]", 0),  # x 81
        ("[0.900,0.500] [0.250,0.500]", 0),  # the first counts
        ("[0.250,0.500;0.900,0.500]", 1),  # also within one pair of brackets
    ],
)
def test_the_first_point_must_lie_in_the_closed_box(pred, accuracy):
    assert _score("PointingEvaluator", pred, {"boxes": [[20, 10, 80, 80]]}).metrics["accuracy"] == accuracy


def test_a_point_outside_the_image_is_a_miss_also_inside_a_box_that_reaches_there():
    # Text y 0.2 is 40 of the square, 10 above the picture.
    result = _score("PointingEvaluator", "[0.250,0.200]", {"boxes": [[0, -20, 200, 100]]})
    assert result.metrics == {"accuracy": 0, "failure_rate": 0}


def test_any_box_of_the_truth_will_do():
    truth = {"boxes": [[0, 0, 10, 10], [40, 40, 60, 60]]}
    assert _score("PointingEvaluator", "[0.250,0.500]", truth).metrics["accuracy"] == 1


@pytest.mark.parametrize("pred", ["", "there", "[0.1,0.2,0.3,0.4]"])
def test_an_answer_without_a_point_is_counted(pred):
    result = _score("PointingEvaluator", pred, {"boxes": [[0, 0, 9, 9]]})
    assert result.failures == {"no point in the answer": 1}
    assert result.metrics["accuracy"] == 0


def test_a_truth_without_boxes_is_an_error():
    with pytest.raises(DataError, match="PointingEvaluator needs boxes in the truth's 'boxes'"):
        _score("PointingEvaluator", "[0.5,0.5]", {})


@pytest.mark.parametrize(
    ("pred", "answer", "accuracy"),
    [
        ("The answer is yes.", "yes", 1),
        ("I look at it. The answer is dark red. Thanks.", "dark red", 1),
        ("The answer is Yes.", "yes", 0),  # exact
        ("The answer is yes or no.", "yes", 0),
        ("The answer is 3.5.", "3.5", 1),  # both are cut at the first stop
    ],
)
def test_local_answers_are_read_from_their_sentence(pred, answer, accuracy):
    assert _score("PointQAEvaluator", pred, {"answers": [answer]}).metrics["accuracy"] == accuracy


@pytest.mark.parametrize(
    ("pred", "reason"),
    [
        ("", "no 'The answer is ….'"),
        ("yes", "no 'The answer is ….'"),
        ("The answer is yes", "no 'The answer is ….'"),
        ("The answer is yes. The answer is no.", "several 'The answer is ….'"),
    ],
)
def test_the_sentence_must_stand_there_once(pred, reason):
    result = _score("PointQAEvaluator", pred, {"answers": ["yes"]})
    assert result.failures == {reason: 1}
    assert result.metrics["accuracy"] == 0


CANDIDATES = [[0, 0, 100, 100], [40, 40, 60, 60], [150, 0, 200, 50], [0, 0, 100, 100]]


@pytest.mark.parametrize(
    ("pred", "choice"),
    [
        ("The answer is [0.250,0.500] .", 1),  # (50, 50) lies in the first, second and fourth: the smallest
        ("[0.100,0.300]", 0),  # (20, 10) lies in two of the same size: the earlier
        ("[0.900,0.300]", 2),  # (180, 10)
        ("[0.700,0.700]", -1),  # (140, 90): none
        ("The answer is [0.000,0.250,0.500,0.700] .", 0),  # 100 x 90 of the first
        ("[0.200,0.450,0.300,0.550] [0.750,0.250,1.000,0.500]", 1),  # the first box is the second candidate
        ("[0.600,0.650,0.700,0.700]", -1),  # beside all
    ],
)
def test_a_box_chooses_by_overlap_and_a_point_by_where_it_lies(pred, choice):
    for right in range(3):
        result = _score("PointQAEvaluator", pred, {"candidates": CANDIDATES, "answer_index": right})
        assert result.scores[0]["value"] == choice
        assert result.metrics == {"accuracy": float(choice == right), "failure_rate": 0}


def test_an_answer_that_chooses_nothing_is_counted():
    result = _score("PointQAEvaluator", "The answer is yes.", {"candidates": CANDIDATES, "answer_index": 1})
    assert result.failures == {"no box or point in the answer": 1}


def test_candidates_need_the_right_ones_position():
    with pytest.raises(DataError, match="answer_index"):
        _score("PointQAEvaluator", "[0.5,0.5]", {"candidates": CANDIDATES})
