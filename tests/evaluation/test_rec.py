import gzip
import json

import pytest

from mllm.errors import DataError
from mllm.grounding.formatter import PlainFormatter
from mllm.grounding.geometry import xywh_to_xyxy
from mllm.grounding.transforms import SquareCanvas, View
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record


def _evaluator(**options):
    evaluator = EVALUATORS.build({"type": "RECEvaluator", **options})
    evaluator.formatter = PlainFormatter()
    return evaluator


def _record(pred, box, index=0, frame=None):
    return Record(index, str(index), pred, truth={"boxes": [box]}, frames=[frame or Frame((100, 100), (100, 100))])


@pytest.mark.parametrize(
    ("pred", "iou"),
    [
        ("[0.000,0.000,0.500,0.500]", 1.0),
        ("Answer: [0.000,0.000,0.500,0.250] .", 0.5),  # half of the truth: exactly at the threshold, a hit
        ("[0.250,0.000,0.750,0.500]", 1 / 3),  # 25x50 common of 2 x 2500 - 1250
        ("[0.6,0.6,0.9,0.9] [0,0,0.5,0.5]", 0.0),  # the first box counts
        ("[0.500,0.500,0.000,0.000]", 0.0),  # inverted: no area
    ],
)
def test_iou_and_hits_of_one_answer(pred, iou):
    result = _evaluator().evaluate([_record(pred, [0, 0, 50, 50])])
    assert result.metrics["mean_iou"] == pytest.approx(iou)
    assert result.metrics["acc@0.5"] == float(iou >= 0.5)
    assert result.metrics["failure_rate"] == 0


@pytest.mark.parametrize("pred", ["", "on the left", "[0.1,0.2]", "[1]", "(see 3,4)"])
def test_an_answer_without_a_box_is_a_miss_and_counted(pred):
    result = _evaluator().evaluate([_record(pred, [0, 0, 50, 50])])
    assert result.metrics["acc@0.5"] == 0
    assert result.metrics["failure_rate"] == 1
    assert result.failures == {"no box in the answer": 1}


def test_a_record_that_was_not_generated_scores_nothing():
    record = Record(0, "0", "", failure="val[0]: image is missing")
    result = _evaluator().evaluate([record])
    assert result.metrics["acc@0.5"] == 0
    assert result.failures == {"not generated": 1}


def test_the_answer_goes_back_through_the_frame():
    # 200x100 on a 200x200 square: offset (0, 50). Text y 0.25..0.5 is canvas 50..100, original 0..50.
    frame = SquareCanvas()(View.of(_blank(200, 100)), None).frame
    result = _evaluator().evaluate([_record("[0.000,0.250,0.500,0.500]", [0, 0, 100, 50], frame=frame)])
    assert result.metrics["mean_iou"] == pytest.approx(1.0)


def test_a_truth_without_boxes_is_an_error():
    with pytest.raises(DataError, match="truth has no 'boxes'"):
        _evaluator().evaluate([Record(3, "3", "[0,0,1,1]", frames=[Frame((9, 9), (9, 9))])])


# Whole-image predictions over the full files: published protocol figures, see the folder's PROVENANCE.md.
WHOLE_IMAGE = {
    "refcoco_val": (10834, 0.062304, 0.205087),
    "refcoco_testA": (5657, 0.057274, 0.219812),
    "refcocog_test": (9602, 0.074151, 0.206400),
}


def _rows(shared_data, name):
    return json.loads(gzip.decompress((shared_data / "refcoco_eval_full" / f"{name}.json.gz").read_bytes()))


@pytest.mark.parametrize("name", WHOLE_IMAGE)
def test_whole_image_pixel_boxes_score_the_reference_figures(shared_data, name):
    count, accuracy, mean_iou = WHOLE_IMAGE[name]
    records = [
        _record(f"[0,0,{row['width']},{row['height']}]", xywh_to_xyxy(row["bbox"]), index)
        for index, row in enumerate(_rows(shared_data, name))
    ]
    result = _evaluator(boxes="pixels").evaluate(records, resamples=0)
    assert len(records) == count
    assert result.metrics["acc@0.5"] == pytest.approx(accuracy, abs=5e-7)
    assert result.metrics["mean_iou"] == pytest.approx(mean_iou, abs=5e-7)


@pytest.mark.parametrize("name", WHOLE_IMAGE)
def test_through_the_formatter_accuracy_is_the_same_and_iou_within_its_bound(shared_data, name):
    _, accuracy, mean_iou = WHOLE_IMAGE[name]
    formatter, records, frames = PlainFormatter(), [], {}
    for index, row in enumerate(_rows(shared_data, name)):
        size = (row["width"], row["height"])
        frame = frames.setdefault(size, SquareCanvas()(View.of(_blank(*size)), None).frame)
        pred = formatter.format_boxes([frame.normalize((0, 0, *size))])
        records.append(_record(pred, xywh_to_xyxy(row["bbox"]), index, frame))
    result = _evaluator().evaluate(records, resamples=0)
    assert result.metrics["acc@0.5"] == pytest.approx(accuracy, abs=5e-7)
    assert result.metrics["mean_iou"] == pytest.approx(mean_iou, abs=2e-5)


def _blank(width, height):
    from PIL import Image

    return Image.new("RGB", (width, height))
