import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm.errors import ConfigError
from mllm.grounding import BinTokenFormatter, PlainFormatter, ThousandFormatter, build_formatter
from mllm.registry import FORMATTERS

FORMATS = [
    PlainFormatter(),
    PlainFormatter(brackets="round"),
    PlainFormatter(decimals=2),
    BinTokenFormatter(),
    BinTokenFormatter(bins=101),
    ThousandFormatter(),
]
every_format = pytest.mark.parametrize("formatter", FORMATS, ids=lambda one: one.signature)
fraction = st.floats(0, 1)
BOX, POINT = (0.1, 0.2, 0.3, 0.4), (0.123, 0.5)
PIECES = "[ ] ( ) , ; 0.5 1 . - 1e400 nan ٣ ０.1 <b_st> <b_ed> <b_sep> <bin_5> <bin_٣> <p_st> <p_ed> (1,2) [0.1,0.2]"
pieces = st.sampled_from([*PIECES.split(), " ", "\n", "the dog", "<bin_99999999999999999999>"])
model_text = st.one_of(st.text(max_size=60), st.lists(pieces, max_size=25).map("".join))


@pytest.mark.parametrize(
    ("formatter", "box", "boxes", "point", "points"),
    [
        (
            PlainFormatter(),
            "[0.100,0.200,0.300,0.400]",
            "[0.100,0.200,0.300,0.400;0.000,0.000,1.000,1.000]",
            "[0.123,0.500]",
            "[0.123,0.500;0.000,1.000]",
        ),
        (
            PlainFormatter("round"),
            "(0.100,0.200,0.300,0.400)",
            "(0.100,0.200,0.300,0.400;0.000,0.000,1.000,1.000)",
            "(0.123,0.500)",
            "(0.123,0.500;0.000,1.000)",
        ),
        (
            BinTokenFormatter(),
            "<b_st><bin_100> <bin_200> <bin_300> <bin_400><b_ed>",
            "<b_st><bin_100> <bin_200> <bin_300> <bin_400><b_sep><bin_0> <bin_0> <bin_1000> <bin_1000><b_ed>",
            "<p_st><bin_123> <bin_500><p_ed>",
            "<p_st><bin_123> <bin_500><p_sep><bin_0> <bin_1000><p_ed>",
        ),
        (
            ThousandFormatter(),
            "(100,200),(300,400)",
            "(100,200),(300,400) (0,0),(1000,1000)",
            "(123,500)",
            "(123,500) (0,1000)",
        ),
    ],
)
def test_written_forms_are_those_of_the_papers(formatter, box, boxes, point, points):
    assert formatter.format_boxes([BOX]) == box
    assert formatter.format_boxes([BOX, (0, 0, 1, 1)]) == boxes
    assert formatter.format_points([POINT]) == point
    assert formatter.format_points([POINT, (0, 1)]) == points


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
    text = f"a {formatter.format_boxes(first)} and b {formatter.format_boxes(second)}"
    _close(formatter.parse_boxes(text).groups, [first, second], formatter.tolerance)


@every_format
@settings(deadline=None, max_examples=150)
@given(text=model_text)
def test_reading_never_fails_and_never_leaves_the_range(formatter, text):
    for parsed, count in ((formatter.parse_boxes(text), 4), (formatter.parse_points(text), 2)):
        assert all(len(place) == count for group in parsed.groups for place in group)
        assert all(0 <= value <= 1 for group in parsed.groups for place in group for value in place)
        assert all(group for group in parsed.groups)
        assert all(one in text for one in parsed.unreadable)
    formatter.strip(text)


@every_format
@settings(deadline=None, max_examples=80)
@given(text=st.text(st.characters(exclude_categories=("Nd", "Nl", "No")), max_size=60))
def test_text_without_numbers_holds_nothing_and_is_not_stripped(formatter, text):
    assert formatter.parse_boxes(text).groups == formatter.parse_points(text).groups == []
    assert formatter.strip(text) == text.strip() or "<" in text or "nan" in text.lower() or "inf" in text.lower()


@every_format
@pytest.mark.parametrize(
    "text", ["[1]", "(see 3,4)", "[see 0.1,0.2]", "(a, b)", "a [ ] b", "(,)", "", "[1, 2, 3]", "$(3)$"]
)
def test_what_only_looks_like_a_place_is_left_alone(formatter, text):
    for parsed in (formatter.parse_boxes(text), formatter.parse_points(text)):
        assert parsed.groups == parsed.unreadable == []
    assert formatter.strip(text) == text


@every_format
@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "[0.1," * 10_000,
        "(" + " " * 50_000,
        "<b_st>" * 8_000,
        "<b_st>" + " " * 50_000 + "x",
        "(1,2)," * 8_000,
        "[" + "1" * 50_000 + ",0,0,0]",
        "[" * 20_000 + "0.1,0.2" + "]" * 20_000,
        "<bin_1>" * 8_000,
    ],
    ids=lambda text: text[:8].strip(),
)
def test_very_long_text_is_read_too(formatter, text):
    formatter.parse_boxes(text)
    formatter.parse_points(text)
    formatter.strip(text)


@pytest.mark.parametrize(
    "text",
    [
        "[.1,.2,.3,.4]",
        "[ 0.1 , 0.2,0.3 ,0.4 ]",
        "(0.1,0.2,0.3,0.4)",
        "[0.1000000,2e-1,+0.3,0.40]",
        "[[0.1,0.2,0.3,0.4]]",
    ],
)
def test_plain_reading_takes_spaces_short_numbers_and_either_bracket(text):
    assert PlainFormatter().parse_boxes(text).groups == [[BOX]]


def test_plain_reading_takes_whole_numbers_and_keeps_inverted_boxes():
    assert PlainFormatter().parse_boxes("[1,1.0,0,0]").groups == [[(1.0, 1.0, 0.0, 0.0)]]
    assert PlainFormatter().parse_points("(1, 0)").groups == [[(1.0, 0.0)]]


def test_a_rounding_excess_is_clamped_and_more_is_unreadable():
    assert PlainFormatter().parse_boxes("[-0.001,0,1.001,1]").groups == [[(0.0, 0.0, 1.0, 1.0)]]
    parsed = PlainFormatter().parse_boxes("[0.1,0.2,0.3,1.1] [10,20,30,40]")
    assert parsed.groups == []
    assert parsed.unreadable == ["[0.1,0.2,0.3,1.1]", "[10,20,30,40]"]


@pytest.mark.parametrize(
    ("formatter", "text"),
    [
        (PlainFormatter(), "[0.1,0.2,0.3]"),
        (PlainFormatter(), "[0.1,0.2,0.3,0.4;0.5]"),
        (PlainFormatter(), "[0.1,,0.3,0.4]"),
        (PlainFormatter(), "[nan,0.2,0.3,0.4]"),
        (PlainFormatter(), "[1e400,0.2,0.3,0.4]"),
        (PlainFormatter(), "[０.1,0.2,0.3,0.4]"),
        (BinTokenFormatter(), "<b_st><bin_1> <bin_2> <bin_3><b_ed>"),
        (BinTokenFormatter(), "<b_st><bin_1> <bin_2> <bin_3> <bin_1001><b_ed>"),
        (BinTokenFormatter(), "<b_st><bin_1> <bin_2> <bin_3> <bin_4>"),
        (BinTokenFormatter(), "<b_st><bin_1> <bin_2> <bin_3> <bin_4><p_ed>"),
        (ThousandFormatter(), "(100,200),(300,1400)"),
        (ThousandFormatter(), "(1,2),(3,4),(5,6)"),
        (ThousandFormatter(), "(1,2,3,4)"),
    ],
)
def test_an_unreadable_group_is_named_and_does_not_hide_the_next(formatter, text):
    good = formatter.format_boxes([BOX])
    parsed = formatter.parse_boxes(f"{text} then {good}")
    assert parsed.unreadable == [text]
    _close(parsed.groups, [[BOX]], formatter.tolerance)
    assert formatter.strip(f"a cat {text} then {good}.") == "a cat then."


@every_format
@pytest.mark.parametrize("box", [(0.1, 0.2, 0.3), (0, 0, 1, 1.01), (float("nan"), 0, 0, 0), (-0.1, 0, 1, 1)])
def test_writing_refuses_what_is_no_fraction(formatter, box):
    with pytest.raises(ValueError, match="4 fractions"):
        formatter.format_boxes([box])
    with pytest.raises(ValueError, match="no points"):
        formatter.format_points([])


def test_a_negative_zero_is_written_as_zero():
    assert PlainFormatter().format_points([(-0.0, 0.0)]) == "[0.000,0.000]"


def test_only_bins_need_new_tokens():
    assert PlainFormatter().tokens() == ThousandFormatter().tokens() == []
    tokens = BinTokenFormatter(bins=3).tokens()
    assert tokens == ["<b_st>", "<b_ed>", "<b_sep>", "<p_st>", "<p_ed>", "<p_sep>", "<bin_0>", "<bin_1>", "<bin_2>"]


@every_format
def test_a_config_rebuilds_the_formatter(formatter):
    rebuilt = FORMATTERS.build(formatter.to_config())
    assert rebuilt.signature == formatter.signature
    assert rebuilt.format_boxes([BOX]) == formatter.format_boxes([BOX])
    assert build_formatter("PlainFormatter").signature == PlainFormatter().signature
    assert build_formatter(formatter) is formatter


def test_signatures_tell_formats_apart():
    assert len({formatter.signature for formatter in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize("spec", [{"brackets": "curly"}, {"decimals": 0}])
def test_a_wrong_option_is_a_config_error(spec):
    with pytest.raises(ConfigError, match="expected"):
        build_formatter({"type": "PlainFormatter", **spec})
