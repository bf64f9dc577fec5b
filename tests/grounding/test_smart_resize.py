import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mllm.errors import ConfigError, DataError
from mllm.grounding import Resize, SmartResize, View, smart_size
from mllm.registry import TRANSFORMS

BOUNDS = [(28, 56 * 56, 1280 * 28 * 28), (28, 56 * 56, 16384 * 28 * 28), (32, 256 * 256, 4096 * 4096), (28, 784, 7840)]
side = st.integers(1, 6000)


def _run(image, *transforms):
    view = View.of(image)
    for transform in transforms:
        view = transform(view, random.Random(0))
    return view


@settings(deadline=None, max_examples=300)
@given(width=side, height=side, bounds=st.sampled_from(BOUNDS))
def test_the_size_is_that_of_transformers(width, height, bounds):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    if max(width, height) > 200 * min(width, height):
        with pytest.raises(DataError, match=f"{width}x{height}, more than 200 times"):
            smart_size((width, height), *bounds)
        return
    assert smart_size((width, height), *bounds) == smart_resize(height, width, *bounds)[::-1]


@settings(deadline=None, max_examples=100)
@given(width=st.integers(30, 3000), height=st.integers(30, 3000), bounds=st.sampled_from(BOUNDS))
def test_what_was_resized_stays_as_it_is(width, height, bounds):
    size = smart_size((width, height), *bounds)
    factor, _, most = bounds
    if size[0] * size[1] <= most:  # beyond it where one side is a single patch
        assert smart_size(size, *bounds) == size
    assert size[0] % factor == size[1] % factor == 0


def test_sizes_worked_out_by_hand():
    # 640 / 28 = 22.9 → 23, 427 / 28 = 15.25 → 15; all within the bounds.
    assert smart_size((640, 427), 28, 56 * 56, 1280 * 28 * 28) == (644, 420)
    # 30 x 30 rounds to 28 x 28 < 3136: grown by 56 / 30 to 56 x 56.
    assert smart_size((30, 30), 28, 56 * 56, 1280 * 28 * 28) == (56, 56)
    # At most 4 tokens of 28 x 28: 100 x 100 shrinks to 56 x 56.
    assert smart_size((100, 100), 28, 784, 3136) == (56, 56)


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(5, 300),
    height=st.integers(5, 300),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    frame_side=st.sampled_from([None, 1000]),
)
def test_frame_maps_points_of_the_image_there_and_back(width, height, share, frame_side):
    view = _run(Image.new("RGB", (width, height)), SmartResize(28, frame_side=frame_side))
    point = (share[0] * width, share[1] * height)
    fractions = view.frame.normalize(point)
    assert view.frame.denormalize(fractions) == pytest.approx(point, abs=1e-6)
    # A fraction of the frame's canvas is a place on the resized image: of itself, or of the square it lies in.
    canvas = view.image.size if frame_side is None else (frame_side, frame_side)
    on_image = [fraction * length for fraction, length in zip(fractions, canvas, strict=True)]
    assert on_image == pytest.approx([one * length for one, length in zip(share, view.image.size, strict=True)])


def test_with_a_frame_side_fractions_times_it_are_pixels_of_the_resized_image():
    image = Image.new("RGB", (100, 50), "white")
    ImageDraw.Draw(image).rectangle((20, 10, 59, 39), fill="red")  # covers the continuous box (20, 10, 60, 40)
    view = _run(image, Resize((100, 50)), SmartResize(28, min_pixels=784, max_pixels=28 * 28 * 40, frame_side=500))
    assert view.image.size == (112, 56)
    box = [value * 500 for value in view.frame.normalize((20, 10, 60, 40))]
    assert box == pytest.approx([22.4, 11.2, 67.2, 44.8])  # times 1.12
    assert view.image.getpixel((23, 13)) == (255, 0, 0)
    assert view.image.getpixel((20, 13)) == (255, 255, 255)


def test_a_canvas_longer_than_the_frames_side_is_a_data_error():
    with pytest.raises(DataError, match="616x308, longer than SmartResize's frame_side=500"):
        _run(Image.new("RGB", (616, 308)), SmartResize(28, frame_side=500))


def test_a_config_rebuilds_it():
    again = TRANSFORMS.build(SmartResize(32, 1024, 4096, frame_side=640).to_config())
    assert vars(again) == {"factor": 32, "min_pixels": 1024, "max_pixels": 4096, "frame_side": 640}


@pytest.mark.parametrize("options", [{"max_pixels": 100}, {"min_pixels": 0}, {"min_pixels": 4000, "max_pixels": 3136}])
def test_bounds_that_no_image_can_keep_are_a_config_error(options):
    with pytest.raises(ConfigError, match="expected 1 <= min_pixels <= max_pixels"):
        TRANSFORMS.build({"type": "SmartResize", **options})
