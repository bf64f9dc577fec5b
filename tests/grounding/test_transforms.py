import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mllm.errors import ConfigError
from mllm.grounding import Compose, RandomHorizontalFlip, Resize, SquareCanvas, View
from mllm.registry import TRANSFORMS

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)
always = RandomHorizontalFlip(1.0)


def _run(view, *transforms):
    return Compose(transforms)(view, random.Random(0))


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.one_of(st.integers(1, 64), st.tuples(st.integers(1, 64), st.integers(1, 64))),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    flip=st.booleans(),
)
def test_frame_maps_points_of_the_image_there_and_back(width, height, size, share, flip):
    view = _run(View.of(Image.new("RGB", (width, height))), SquareCanvas(), Resize(size), *[always] * flip)
    point = (share[0] * width, share[1] * height)
    assert view.frame.denormalize(view.frame.normalize(point)) == pytest.approx(point, abs=1e-6)
    assert view.image.size == view.frame.canvas_size


@pytest.mark.parametrize(
    ("image_size", "offset"),
    [((40, 20), (0, 10)), ((20, 40), (10, 0)), ((7, 4), (0, 1)), ((4, 7), (1, 0)), ((5, 5), (0, 0))],
)
def test_canvas_is_square_with_the_floor_of_the_half_difference_before_the_image(image_size, offset):
    view = _run(View.of(Image.new("RGB", image_size, BLUE)), SquareCanvas())
    side = max(image_size)
    assert view.image.size == view.frame.canvas_size == (side, side)
    assert view.frame.offset == offset
    assert view.image.getpixel(offset) == BLUE
    last = (offset[0] + image_size[0] - 1, offset[1] + image_size[1] - 1)
    assert view.image.getpixel(last) == BLUE
    if offset[1]:
        assert view.image.getpixel((0, offset[1] - 1)) == WHITE
        assert view.image.getpixel((0, side - 1)) == WHITE


@pytest.mark.parametrize("transforms", [(), (always,)], ids=["straight", "mirrored"])
def test_a_drawn_rectangle_ends_where_the_frame_says(transforms):
    image = Image.new("RGB", (40, 20), BLUE)
    ImageDraw.Draw(image).rectangle((4, 6, 11, 15), fill=RED)  # covers the continuous box (4, 6, 12, 16)
    view = _run(View.of(image), SquareCanvas(), Resize((80, 160), resample="nearest"), *transforms)
    xs, ys = zip(*[(x, y) for x in range(80) for y in range(160) if view.image.getpixel((x, y)) == RED], strict=True)
    a, b, c, d = view.frame.normalize((4, 6, 12, 16))
    box = [min(a, c) * 80, b * 160, max(a, c) * 80, d * 160]
    assert [min(xs), min(ys), max(xs) + 1, max(ys) + 1] == pytest.approx(box)


def test_worked_frame_of_canvas_then_resize():
    # 40x20 → 40x40 with 10 rows above → 20x20: half the scale, 5 rows above
    frame = _run(View.of(Image.new("RGB", (40, 20))), SquareCanvas(), Resize(20)).frame
    assert frame.image_size == (40, 20)
    assert (frame.canvas_size, frame.offset, frame.scale) == ((20, 20), (0, 5), (0.5, 0.5))
    assert frame.normalize((0, 0, 40, 20)) == (0, 0.25, 1, 0.75)


@pytest.mark.parametrize("places", [{"boxes": [(0, 0, 1, 1)]}, {"points": [(1, 1)]}])
def test_flips_never_apply_where_places_exist(places):
    image = Image.new("RGB", (4, 4))
    image.putpixel((0, 0), RED)
    assert always(View.of(image, **places), random.Random(0)).image.getpixel((0, 0)) == RED
    assert always(View.of(image), random.Random(0)).image.getpixel((3, 0)) == RED


def test_random_choices_come_from_the_generator_alone():
    flip, view = RandomHorizontalFlip(0.5), View.of(Image.new("RGB", (4, 4)))
    first, second = random.Random(3), random.Random(3)
    outcomes = [flip(view, first).frame.scale[0] for _ in range(50)]
    assert outcomes == [flip(view, second).frame.scale[0] for _ in range(50)]
    assert set(outcomes) == {1.0, -1.0}
    with_box = View.of(Image.new("RGB", (4, 4)), boxes=[(0, 0, 1, 1)])
    third = random.Random(3)
    for _ in range(50):
        flip(with_box, third)
    assert third.random() == first.random()


def test_a_transform_leaves_the_view_it_was_given_as_it_was():
    view = View.of(Image.new("RGB", (4, 2), BLUE), boxes=[(0, 0, 1, 1)])
    after = _run(view, SquareCanvas(), Resize(8))
    assert view.frame.canvas_size == view.image.size == (4, 2)
    assert after.boxes == view.boxes


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_canvas_gives_colour_images_whatever_the_mode(mode):
    assert SquareCanvas()(View.of(Image.new(mode, (3, 2))), random.Random(0)).image.mode == "RGB"


def test_a_config_rebuilds_the_transforms():
    chain = Compose([SquareCanvas((1, 2, 3)), {"type": "Resize", "size": [8, 4]}, RandomHorizontalFlip(0.1)])
    assert TRANSFORMS.build(chain.to_config()).to_config() == chain.to_config()


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "Resize", "size": 0},
        {"type": "Resize", "size": (1, 2, 3)},
        {"type": "Resize", "size": 8, "resample": "bicubik"},
        {"type": "SquareCanvas", "colour": (1, 2)},
        {"type": "RandomHorizontalFlip", "probability": 2},
    ],
)
def test_a_wrong_option_names_itself(spec):
    with pytest.raises(ConfigError, match=spec["type"]):
        TRANSFORMS.build(spec)
