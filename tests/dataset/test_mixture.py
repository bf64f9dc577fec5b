import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.dataset.mixture import sources_of
from mllm.dataset.resampling import shuffled_place
from mllm.errors import ConfigError
from mllm.registry import DATASETS

REC = dict(type="DrawnREC", split="a")


def test_concat_keeps_order_and_sources():
    both = DATASETS.build(dict(type="ConcatDataset", datasets=[dict(REC, count=3), dict(REC, count=2, split="b")]))
    assert len(both) == 5
    keys = [both[index]["meta"]["image_id"] for index in range(5)]
    assert len(set(keys)) == 5
    # The next readable row is looked for within the source, round and round.
    assert [both.same_source(index, 1) for index in range(5)] == [1, 2, 0, 4, 3]
    assert both.same_source(1, 2) == 0
    with pytest.raises(IndexError):
        both[5]


def test_concat_of_nothing_is_an_error():
    with pytest.raises(ConfigError, match="'datasets' is empty"):
        DATASETS.build(dict(type="ConcatDataset", datasets=[]))


def test_blank_images_keep_size_and_text_but_no_content():
    plain = DATASETS.build(dict(REC, count=1))[0]
    blank = DATASETS.build(dict(type="BlankImages", dataset=dict(REC, count=1)))[0]
    assert blank["conversations"] == plain["conversations"]
    assert blank["images"][0].size == plain["image"].size
    assert len(blank["images"][0].getcolors()) == 1


ROWS = 10


def mixture(kind, **options):
    return DATASETS.build(dict(type=kind, **options))


def rec(name, count):
    return dict(REC, split=name, count=count)


def pictures(dataset, epoch=0):
    return [dataset.item(index, epoch)["meta"]["image_id"] for index in range(len(dataset))]


def counts(values):
    return {value: values.count(value) for value in values}


def test_repeat_above_one_takes_every_row_and_the_rest_by_turns():
    repeated = mixture("RepeatDataset", dataset=rec("a", ROWS), times=1.5)
    assert len(repeated) == 15
    first, second = pictures(repeated), pictures(repeated, epoch=1)
    # 15 of 10 rows: five come twice in the first epoch, the other five in the second; 30 draws are 3 of each.
    assert sorted(counts(first).values()) == [1] * 5 + [2] * 5
    assert set(counts(first + second).values()) == {3}
    assert pictures(repeated) == first


def test_a_returning_row_is_asked_otherwise():
    repeated = mixture("RepeatDataset", dataset=dict(rec("a", 1), questions=["Find <expr> in <image>."]), times=6)
    asked = {repeated[index]["conversations"][0]["value"] for index in range(6)}
    assert len(asked) > 1


def test_repeat_below_one_sees_all_rows_over_the_epochs():
    half = mixture("RepeatDataset", dataset=rec("a", ROWS), times=0.5)
    assert len(half) == 5
    assert len(set(pictures(half) + pictures(half, epoch=1))) == ROWS


def test_subset_is_the_same_rows_in_every_epoch():
    subset = mixture("SubsetDataset", dataset=rec("a", ROWS), portion=0.3)
    assert len(subset) == 3
    assert pictures(subset) == pictures(subset, epoch=1)
    assert set(pictures(subset)) < set(pictures(mixture("RepeatDataset", dataset=rec("a", ROWS), times=1)))
    first = mixture("SubsetDataset", dataset=rec("a", ROWS), count=2, shuffle=False)
    assert pictures(first) == [f"0/a/{index}" for index in range(2)]
    other = mixture("SubsetDataset", dataset=rec("a", 1000), count=10, seed=1)
    assert pictures(other) != pictures(mixture("SubsetDataset", dataset=rec("a", 1000), count=10, seed=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(portion=1.5), "portion=1.5; expected above 0, at most 1"),
        (dict(count=11), "count=11; expected 1 to 10"),
        (dict(), "give portion or count"),
    ],
)
def test_a_wrong_subset_says_what_is_possible(options, message):
    with pytest.raises(ConfigError, match=message):
        mixture("SubsetDataset", dataset=rec("a", ROWS), **options)


def sources(dataset, epoch=0):
    return [name.split("/")[1] for name in pictures(dataset, epoch)]


def test_interleave_ends_with_the_first_that_has_no_row_left():
    mixed = mixture("InterleaveDataset", datasets=[rec("a", 5), rec("b", 50)], probabilities=[0.5, 0.5], seed=3)
    drawn = sources(mixed)
    assert drawn[-1] == "a"
    assert drawn.count("a") == 5
    assert len(set(pictures(mixed))) == len(mixed)


def test_interleave_until_all_were_through_repeats_the_short_ones():
    mixed = mixture(
        "InterleaveDataset", datasets=[rec("a", 4), rec("b", 40)], probabilities=[1, 1], stopping="all_exhausted"
    )
    seen = pictures(mixed)
    assert {name for name in seen if "/b/" in name} == {f"0/b/{index}" for index in range(40)}
    short = counts([name for name in seen if "/a/" in name])
    assert len(short) == 4
    assert max(short.values()) - min(short.values()) <= 1
    # With equal probabilities 40 draws of b leave about as many of a.
    assert 20 < sum(short.values()) < 80


def test_interleave_keeps_its_probabilities_and_goes_on_in_the_next_epoch():
    mixed = mixture("InterleaveDataset", datasets=[rec("a", 400), rec("b", 400)], probabilities=[0.2, 0.8], seed=1)
    share = sources(mixed).count("a") / len(mixed)
    # 500 draws with p = 0.2: 0.2 within four standard deviations of 0.018.
    assert abs(share - 0.2) < 0.072
    once, twice = {n for n in pictures(mixed) if "/a/" in n}, {n for n in pictures(mixed, epoch=1) if "/a/" in n}
    assert len(once | twice) == len(once) + len(twice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(probabilities=[1.0]), "expected one number above 0 for each"),
        (dict(stopping="never"), "stopping='never'"),
    ],
)
def test_a_wrong_interleave_says_what_is_possible(options, message):
    with pytest.raises(ConfigError, match=message):
        mixture("InterleaveDataset", datasets=[rec("a", 4), rec("b", 4)], **options)


def test_concat_with_shuffle_keeps_portions_and_shuffles_anew():
    joined = mixture("ConcatDatasetWithShuffle", datasets=[rec("a", 4), rec("b", 6)], portions=[2.5, 1])
    assert len(joined) == 16
    assert sources(joined).count("a") == 10
    assert sources(joined) != sorted(sources(joined))
    assert pictures(joined) != pictures(joined, epoch=1)
    assert sorted(name for name in pictures(joined) if "/b/" in name) == [f"0/b/{index}" for index in range(6)]


@pytest.mark.parametrize(
    "options",
    [
        dict(type="ConcatDataset"),
        dict(type="ConcatDatasetWithShuffle", portions=2.0),
        dict(type="InterleaveDataset", stopping="all_exhausted"),
    ],
)
def test_a_replacement_comes_from_the_same_source_and_goes_round(options):
    mixed = DATASETS.build(dict(options, datasets=[rec("a", 5), rec("b", 7)]))
    here = sources(mixed)
    for index in range(len(mixed)):
        found = [mixed.same_source(index, step) for step in range(1, here.count(here[index]) + 1)]
        assert found[-1] == index
        assert sorted(found) == [other for other in range(len(mixed)) if here[other] == here[index]]


@given(length=st.integers(1, 300), key=st.text(max_size=8))
def test_the_shuffle_is_a_permutation(length, key):
    assert sorted(shuffled_place(place, length, key) for place in range(length)) == list(range(length))


def test_sources_of_a_nested_mixture_add_up():
    nested = mixture(
        "ConcatDataset",
        datasets=[
            dict(type="RepeatDataset", dataset=rec("a", 4), times=2.5),
            dict(
                type="SubsetDataset", dataset=dict(type="ConcatDataset", datasets=[rec("b", 5), rec("c", 5)]), count=6
            ),
        ],
    )
    found = list(sources_of(nested))
    assert [source.rows for source in found] == [4, 5, 5]
    assert [source.samples for source in found] == [10, 3, 3]
