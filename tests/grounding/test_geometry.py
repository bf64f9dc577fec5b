import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm.grounding import (
    area_class,
    box_area,
    box_centre,
    box_iou,
    clip_box,
    contains_point,
    enclosing_box,
    xywh_to_xyxy,
)

coordinate = st.floats(0, 1000, allow_nan=False)
box = st.tuples(coordinate, coordinate, coordinate, coordinate)


def test_area_counts_no_extra_pixel_and_inverted_boxes_have_none():
    assert box_area((1, 2, 4, 6)) == 12
    assert box_area((4, 2, 1, 6)) == 0
    assert box_area((4, 6, 1, 2)) == 0  # both axes inverted: not (-3) * (-4)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),  # 1 shared of 4 + 4 - 1
        ((0, 0, 4, 4), (1, 1, 3, 3), 4 / 16),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0),  # a shared edge is no area
        ((0, 0, 0, 5), (0, 0, 0, 5), 0.0),
        ((3, 3, 1, 1), (0, 0, 4, 4), 0.0),
    ],
)
def test_iou_of_worked_cases(a, b, expected):
    assert box_iou(a, b) == pytest.approx(expected)


@settings(deadline=None, max_examples=100)
@given(box, box)
def test_iou_is_symmetric_and_within_bounds(a, b):
    assert box_iou(a, b) == box_iou(b, a)
    assert 0 <= box_iou(a, b) <= 1


def test_enclosing_box_holds_all_and_needs_one():
    assert enclosing_box([(1, 5, 3, 6), (0, 7, 2, 9)]) == (0, 5, 3, 9)
    with pytest.raises(ValueError, match="at least one"):
        enclosing_box([])


def test_clipping_keeps_the_part_inside_the_image():
    assert clip_box((-5, 2, 30, 50), (20, 10)) == (0, 2, 20, 10)
    assert box_area(clip_box((30, 30, 40, 40), (20, 10))) == 0


def test_conversion_centre_and_containment():
    assert xywh_to_xyxy((1, 2, 3, 4)) == (1, 2, 4, 6)
    assert box_centre((1, 2, 4, 6)) == (2.5, 4)
    assert contains_point((1, 2, 4, 6), (4, 2))
    assert not contains_point((1, 2, 4, 6), (4.01, 3))


def test_sizes_are_cocos():
    # COCO: small below 32 * 32 = 1024 pixels, medium below 96 * 96 = 9216.
    classes = [area_class((0, 0, width, 32)) for width in (31.9, 32, 287.9, 288)]
    assert classes == ["small", "medium", "medium", "large"]
