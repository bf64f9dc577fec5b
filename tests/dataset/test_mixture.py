import pytest

from mllm.errors import ConfigError
from mllm.registry import DATASETS

REC = dict(type="DrawnREC", split="a")


def test_concat_keeps_order_and_sources():
    both = DATASETS.build(dict(type="ConcatDataset", datasets=[dict(REC, count=3), dict(REC, count=2, split="b")]))
    assert len(both) == 5
    keys = [both[index]["meta"]["image_id"] for index in range(5)]
    assert len(set(keys)) == 5
    assert [both.source_range(index) for index in range(5)] == [(0, 3)] * 3 + [(3, 5)] * 2
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
