import numpy as np
import pytest

from mllm.errors import ConfigError, DataError
from mllm.evaluation.masks import mask_of
from mllm.grounding.formatter import PlainFormatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

# 200x100 on a 200x200 square: text y 0.25 … 0.75 is the picture.
FRAME = Frame((200, 100), (200, 200), (0.0, 50.0))


def _score(kind, pred, truth, **options):
    evaluator = EVALUATORS.build({"type": kind, **options})
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
    with pytest.raises(DataError, match="PointingEvaluator needs a list in the truth's 'boxes'"):
        _score("PointingEvaluator", "[0.5,0.5]", {})


# 200 x 100: columns 0 … 49 are free, of column 50 rows 20 … 59 are the object, of column 51 all, then nothing.
RUNS = [50 * 100 + 20, 40, 40, 100, 148 * 100]


def _mask_score(x, y, *masks):
    truth = {"masks": list(masks), "boxes": [[0, 0, 200, 100]]}
    return _score("PointingEvaluator", f"[{x / 200:.6f},{(y + 50) / 200:.6f}]", truth, within="mask")


@pytest.mark.parametrize(
    ("x", "y", "accuracy"),
    [
        (50, 20, 1),
        (50, 19.51, 1),  # row 20
        (49.6, 59.4, 1),
        (50, 59.6, 0),  # row 60
        (50, 19.4, 0),
        (49.4, 30, 0),
        (51, 0, 1),
        (51.4, 99.4, 1),
        (51, 99.8, 0),  # row 100 is no pixel
        (199.9, 50, 0),  # column 200 neither
        (51, -0.3, 0),  # outside the image, although it rounds to row 0
    ],
)
def test_the_rounded_point_must_be_a_pixel_of_the_mask(x, y, accuracy):
    result = _mask_score(x, y, {"size": [100, 200], "counts": RUNS})
    assert result.metrics == {"accuracy": accuracy, "failure_rate": 0}
    assert "in=mask[round(y),round(x)]" in result.signature


def test_any_mask_of_the_truth_will_do():
    empty, full = ({"size": [100, 200], "counts": counts} for counts in ([20000], [0, 20000]))
    assert _mask_score(10, 10, empty, full).metrics["accuracy"] == 1
    assert _mask_score(10, 10, empty).metrics["accuracy"] == 0


def test_packed_runs_and_polygons_are_those_of_pycocotools():
    masks = pytest.importorskip("pycocotools.mask", reason="pip install 'mllm[coco]'")
    rng = np.random.default_rng(0)
    for _ in range(30):
        # Long and short runs, so that counts take one to four characters and their differences both signs.
        mask = np.repeat(rng.random(60) < 0.5, rng.integers(1, 900, 60))[: 40 * 300].reshape(300, 40).T
        packed = masks.encode(np.asfortranarray(mask, dtype=np.uint8))
        counts = packed["counts"].decode()
        assert (mask_of({"size": [40, 300], "counts": counts}, (300, 40)) == mask).all()
    polygons = [[10.5, 5, 30, 8.2, 12, 30], [50, 10, 70, 10, 70, 30, 50, 30]]
    expected = masks.decode(masks.merge(masks.frPyObjects(polygons, 40, 300)))
    assert (mask_of(polygons, (300, 40)) == expected).all()
    assert expected.sum() > 500


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [200, 100], "counts": [20000]}, r"size \[200, 100\], the image is \[100, 200\]"),
        ({"size": [100, 200], "counts": [1, 2]}, "add up to 20000 pixels"),
        ({"size": [100, 200], "counts": [20001, -1]}, "whole numbers"),
        ({"size": [100, 200], "counts": "0"}, "add up to 20000 pixels"),
        ([10, 10, 20, 20, 10, 20], "expected polygons"),
        ([[10, 10, 20, 20]], "expected polygons"),
        ([[10, 10, 20, 20, float("nan"), 5]], "expected polygons"),
        ([], "expected polygons"),
    ],
)
def test_a_mask_that_cannot_be_one_is_an_error_that_names_the_record(mask, message):
    with pytest.raises(DataError, match=f"record 0: the truth's 'masks': .*{message}"):
        _mask_score(10, 10, mask)


def test_masks_are_demanded_where_they_are_the_rule():
    with pytest.raises(DataError, match="needs a list in the truth's 'masks'"):
        _score("PointingEvaluator", "[0.5,0.5]", {"boxes": [[0, 0, 9, 9]]}, within="mask")
    with pytest.raises(ConfigError, match="did you mean 'mask'"):
        EVALUATORS.build({"type": "PointingEvaluator", "within": "masks"})


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
