import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mllm.dataset.single_image_conversation import turns_with_coordinates
from mllm.errors import ConfigError
from mllm.grounding import Qwen3Formatter, Qwen25Formatter, build_formatter
from mllm.registry import FORMATTERS
from mllm.structures import Frame, Item, Target, Turn

FORMATS = [Qwen3Formatter(), Qwen25Formatter(), Qwen25Formatter(side=448)]
every_format = pytest.mark.parametrize("formatter", FORMATS, ids=lambda one: one.signature)
fraction = st.floats(0, 1)
BOX, POINT = (0.1, 0.2, 0.3, 0.4), (0.123, 0.5)
PIECES = '{ } [ ] " : , ; 1 0.5 -3 1e400 nan ٣ bbox_2d bbox point_2d "bbox_2d": [1,2,3,4] {"point_2d":[5,6]} "label":'
pieces = st.sampled_from([*PIECES.split(), " ", "\n", "the dog", "99999999999999999999"])
model_text = st.one_of(st.text(max_size=60), st.lists(pieces, max_size=25).map("".join))


def test_written_forms_are_those_of_the_cookbooks():
    thousandths, pixels = Qwen3Formatter(), Qwen25Formatter(side=2000)
    assert thousandths.format_boxes([BOX]) == '{"bbox_2d": [100, 200, 300, 400]}'
    assert pixels.format_boxes([BOX]) == '{"bbox_2d": [200, 400, 600, 800]}'
    both = '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [0, 0, 1000, 1000]}]'
    assert thousandths.format_boxes([BOX, (0, 0, 1, 1)]) == both
    assert json.loads(both)[1] == {"bbox_2d": [0, 0, 1000, 1000]}
    assert thousandths.format_points([POINT]) == '{"point_2d": [123, 500]}'
    assert pixels.format_points([POINT, (0, 1)]) == '[{"point_2d": [246, 1000]}, {"point_2d": [0, 2000]}]'


def _close(groups, expected, tolerance):
    assert [len(group) for group in groups] == [len(group) for group in expected]
    for group, wanted in zip(groups, expected, strict=True):
        for place, original in zip(group, wanted, strict=True):
            assert len(place) == len(original)
            assert all(abs(a - b) <= tolerance for a, b in zip(place, original, strict=True))


@every_format
@settings(deadline=None, max_examples=60)
@given(
    boxes=st.lists(st.tuples(*[fraction] * 4), min_size=1, max_size=3),
    points=st.lists(st.tuples(fraction, fraction), min_size=1, max_size=3),
)
def test_reading_gives_back_what_was_written(formatter, boxes, points):
    text = f"the dogs {formatter.format_boxes(boxes)} look at {formatter.format_points(points)}."
    _close(formatter.parse_boxes(text).groups, [boxes], formatter.tolerance)
    _close(formatter.parse_points(text).groups, [points], formatter.tolerance)
    assert formatter.parse_boxes(text).unreadable == formatter.parse_points(text).unreadable == []
    assert formatter.strip(text) == "the dogs look at."


@every_format
def test_groups_keep_their_order_and_stay_apart(formatter):
    first, second = [BOX, (0.5, 0.5, 0.6, 0.6)], [(0.0, 0.0, 1.0, 1.0)]
    for words in (" and b ", " ", "\n"):
        text = f"a {formatter.format_boxes(first)}{words}{formatter.format_boxes(second * 2)}"
        _close(formatter.parse_boxes(text).groups, [first, second * 2], formatter.tolerance)


@every_format
@settings(deadline=None, max_examples=200)
@given(text=model_text)
def test_reading_never_fails_and_never_leaves_the_range(formatter, text):
    for parsed, count in ((formatter.parse_boxes(text), 4), (formatter.parse_points(text), 2)):
        assert all(len(place) == count for group in parsed.groups for place in group)
        assert all(0 <= value <= 1 for group in parsed.groups for place in group for value in place)
        assert all(group for group in parsed.groups)
        assert all(one in text for one in parsed.unreadable)
    assert all(one.end <= following.start for one, following in pairwise(formatter.find(text)))
    formatter.strip(text)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ('```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "dog"}\n]\n```', [[BOX]]),
        ('{"label": "a dog", "bbox_2d":[100,200,300,400]}', [[BOX]]),
        ('{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [0, 0, 1000, 1000]}', [[BOX, (0.0, 0.0, 1.0, 1.0)]]),
        ("{'bbox': [100.0, 2e2, +300, 400]}", [[BOX]]),
        ('[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [0, 0, 10', [[BOX]]),
        ('{"bbox_2d": [100, 200, 300, 400]', [[BOX]]),
        ('[{"bbox_2d": [100, 200, 300, 400]}, {"point_2d": [1, 2]}]', [[BOX]]),
    ],
)
def test_reading_takes_labels_other_quotes_and_lists_that_are_cut_off(text, groups):
    assert Qwen3Formatter().parse_boxes(text).groups == groups


def test_numbers_that_are_cut_off_are_unreadable():
    text = '{"bbox_2d": [100, 200, 300, 40'
    parsed = Qwen3Formatter().parse_boxes(f"a dog {text}")
    assert (parsed.groups, parsed.unreadable) == ([], [text])


def test_a_list_is_taken_out_with_its_brackets():
    text = 'two dogs [ {"bbox_2d": [1, 2, 3, 4], "label": "dog"},\n {"bbox_2d": [5, 6, 7, 8]} ] play [1].'
    assert Qwen3Formatter().strip(text) == "two dogs play [1]."


@every_format
@pytest.mark.parametrize("text", ["[1]", "[1, 2, 3, 4]", "{1, 2}", '{"a": [1, 2]}', "bbox_2d", "{}", "", "{{{", "[{]}"])
def test_what_only_looks_like_a_place_is_left_alone(formatter, text):
    for parsed in (formatter.parse_boxes(text), formatter.parse_points(text)):
        assert parsed.groups == parsed.unreadable == []
    assert formatter.strip(text) == text


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox_2d": [1, 2, 3]}',
        '{"bbox_2d": [1, 2, 3, 4, 5]}',
        '{"bbox_2d": [1, 2, 3, 1400]}',
        '{"bbox_2d": [1, , 3, 4]}',
        '{"bbox_2d": [nan, 2, 3, 4]}',
        '{"bbox_2d": [1, 2]}',
        '{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8]}',
    ],
)
def test_an_unreadable_group_is_named_and_does_not_hide_the_next(text):
    formatter = Qwen3Formatter()
    good = formatter.format_boxes([BOX])
    for between in (" then ", ", "):
        parsed = formatter.parse_boxes(f"{text}{between}{good}")
        assert parsed.unreadable == [text]
        _close(parsed.groups, [[BOX]], formatter.tolerance)
    assert formatter.strip(f"a cat {text} then {good}.") == "a cat then."


@every_format
@pytest.mark.parametrize(
    "text",
    [
        "{" * 50_000,
        "[" * 50_000,
        '{"bbox_2d": [1' * 8_000,
        '{"bbox_2d": [1,2,3,4]' + ', "bbox_2d": [1,2,3,4]' * 8_000,
        '{"bbox_2d": [1,2,3,4]},' * 8_000,
        '{"bbox_2d"' + " " * 50_000 + "x",
        '{"bbox_2d": [1,2,3,4]}' + " " * 50_000 + "x" + '{"bbox_2d": [1,2,3,4]}',
        '{"bbox_2d": [' + "1" * 50_000 + "]}",
        "bbox" * 20_000,
        '"bbox"' * 10_000,
    ],
    ids=lambda text: f"{text[:20]}…{len(text)}",
)
def test_very_long_text_is_read_too(formatter, text):
    formatter.parse_boxes(text)
    formatter.parse_points(text)
    formatter.strip(text)


@every_format
@pytest.mark.parametrize("box", [(0.1, 0.2, 0.3), (0, 0, 1, 1.01), (float("nan"), 0, 0, 0), (-0.1, 0, 1, 1)])
def test_writing_refuses_what_is_no_fraction(formatter, box):
    with pytest.raises(ValueError, match="4 fractions"):
        formatter.format_boxes([box])


@every_format
def test_a_config_rebuilds_the_formatter(formatter):
    rebuilt = FORMATTERS.build(formatter.to_config())
    assert rebuilt.signature == formatter.signature
    assert rebuilt.format_boxes([BOX]) == formatter.format_boxes([BOX])
    assert rebuilt.tokens() == []


def test_signatures_tell_formats_apart():
    assert len({formatter.signature for formatter in FORMATS}) == len(FORMATS)
    with pytest.raises(ConfigError, match="side=1; expected at least 2"):
        build_formatter({"type": "Qwen3Formatter", "side": 1})


def test_pixels_of_another_canvas_are_never_written():
    item = Item([Image.new("RGB", (40, 30))], [Turn("human", "<boxes>", [[0]])], Target(boxes=[(4.0, 3.0, 20.0, 15.0)]))
    square = Frame((40, 30), (448, 448))
    turn = turns_with_coordinates(item, [square], Qwen25Formatter(side=448))[0]
    assert turn.text == '{"bbox_2d": [4, 3, 20, 15]}'
    with pytest.raises(ConfigError, match=r"canvas is 40x30: end conversation.transforms with .*size=448"):
        turns_with_coordinates(item, [Frame((40, 30), (40, 30))], Qwen25Formatter(side=448))
    assert turns_with_coordinates(item, [Frame((40, 30), (40, 30))], Qwen3Formatter())[0].text.startswith("{")
