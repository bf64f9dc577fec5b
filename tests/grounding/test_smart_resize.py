import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mllm.errors import ConfigError, DataError
from mllm.grounding import SmartResize, View, smart_size
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
@given(width=st.integers(5, 300), height=st.integers(5, 300), share=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_frame_maps_points_of_the_image_there_and_back(width, height, share):
    view = _run(Image.new("RGB", (width, height)), SmartResize(28))
    point = (share[0] * width, share[1] * height)
    assert view.frame.denormalize(view.frame.normalize(point)) == pytest.approx(point, abs=1e-6)
    assert view.frame.normalize(point) == pytest.approx(share)
    assert view.image.size == view.frame.canvas_size == smart_size((width, height), 28, 56 * 56, 1280 * 28 * 28)


def test_a_config_rebuilds_it():
    again = TRANSFORMS.build(SmartResize(32, 1024, 4096).to_config())
    assert vars(again) == {"factor": 32, "min_pixels": 1024, "max_pixels": 4096}


@pytest.mark.parametrize("options", [{"max_pixels": 100}, {"min_pixels": 0}, {"min_pixels": 4000, "max_pixels": 3136}])
def test_bounds_that_no_image_can_keep_are_a_config_error(options):
    with pytest.raises(ConfigError, match="expected 1 <= min_pixels <= max_pixels"):
        TRANSFORMS.build({"type": "SmartResize", **options})
