"""Division into sets: shares, determinism, no image in two sets."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm.dataset.prepare.partition import Ratios, counts_by_split, partition
from mllm.errors import ConfigError


def test_shares_are_met_exactly_in_every_stratum():
    strata = ["NWPU"] * 140 + ["LR"] * 50 + ["DOTA"] * 3
    splits = partition(strata, [[number] for number in range(193)], Ratios(), 0)
    counts = Counter(zip(strata, splits, strict=True))
    # 140: 98 + 28 + 14. 50: 35 + 10 + 5. 3: 2.1 + 0.6 + 0.3, rounded down 2 + 0 + 0, the rest to 0.6.
    assert [counts["NWPU", name] for name in ("train", "test", "val")] == [98, 28, 14]
    assert [counts["LR", name] for name in ("train", "test", "val")] == [35, 10, 5]
    assert [counts["DOTA", name] for name in ("train", "test", "val")] == [2, 1, 0]


def test_counts_sum_to_the_total_and_ties_go_to_train():
    # 132: 92.4 + 26.4 + 13.2.
    assert counts_by_split(132, Ratios()) == {"train": 93, "test": 26, "val": 13}
    assert counts_by_split(5, Ratios(0.5, 0.5)) == {"train": 3, "test": 2}


def test_the_seed_alone_changes_the_sets():
    strata, images = ["a"] * 100, [[number] for number in range(100)]
    first = partition(strata, images, Ratios(), 0)
    assert first == partition(strata, images, Ratios(), 0)
    other = partition(strata, images, Ratios(), 1)
    assert first != other
    assert Counter(first) == Counter(other)


def test_no_validation_where_the_ratios_sum_to_one():
    assert set(Ratios(0.7, 0.3).by_split) == {"train", "test"}
    assert set(Ratios(0.9, 0.1).by_split) == {"train", "test"}
    assert set(partition(["a"] * 10, [[n] for n in range(10)], Ratios(0.7, 0.3), 0)) == {"train", "test"}


@pytest.mark.parametrize(
    ("train", "test"), [(0, 0.5), (0.8, 0.3), (-0.1, 0.2), (0.5, -0.1), (1.2, 0), (float("nan"), 0)]
)
def test_impossible_ratios_are_refused(train, test):
    with pytest.raises(ConfigError, match=r"a sum of at most 1, as 0\.7 and 0\.2"):
        Ratios(train, test)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 40), max_size=3)), max_size=80),
    st.integers(0, 3),
    st.sampled_from([(0.7, 0.2), (0.5, 0.5), (1.0, 0.0), (0.3, 0.0)]),
)
def test_records_that_share_an_image_stay_together(records, seed, shares):
    ratios = Ratios(*shares)
    splits = partition([stratum for stratum, _ in records], [images for _, images in records], ratios, seed)
    assert set(splits) <= set(ratios.by_split)
    homes = {}
    for (_, images), split in zip(records, splits, strict=True):
        for image in images:
            assert homes.setdefault(image, split) == split


def test_chains_of_shared_images_are_followed():
    # 0 and 1 share a, 1 and 3 share b, 3 and 2 share c: one group of four beside six single records.
    images = [["a"], ["a", "b"], ["c"], ["b", "c"], *[[number] for number in range(6)]]
    splits = partition(["x"] * 10, images, Ratios(0.6, 0.4), 5)
    assert len(set(splits[:4])) == 1
    # 6 + 4: the group goes to train, which lacks most; two single ones follow it and four are left for test.
    assert Counter(splits) == {"train": 6, "test": 4}
