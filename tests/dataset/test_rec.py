import json
import pickle

import pytest
from PIL import Image

from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS

QUESTION = "Where is <expr> in <image> ?"
SPLITS = (
    ("refcoco", "unc", "val+testA+testB"),
    ("refcoco+", "unc", "val+testA+testB"),
    ("refcocog", "umd", "val+test"),
)


def _refer(shared_data, name, split_by, split):
    root = shared_data / "refcoco_mini"
    images = str(root / "images" / "train2014")
    return DATASETS.build(
        dict(
            type="RefCOCO",
            root=str(root),
            image_root=images,
            name=name,
            split_by=split_by,
            split=split,
            questions=QUESTION,
        )
    )


def _jsonl(shared_data, name, split_by, split):
    root = shared_data / "refcoco_mini"
    path = root / "shikra_jsonl" / f"REC_{name}_{split_by}_{split}.jsonl"
    images = str(root / "images" / "train2014")
    return DATASETS.build(dict(type="RECJsonl", path=str(path), image_root=images, questions=QUESTION))


def test_both_layouts_give_the_same_115_items(shared_data):
    total = 0
    for name, split_by, splits in SPLITS:
        refer = list(_refer(shared_data, name, split_by, splits))
        jsonl = [item for split in splits.split("+") for item in _jsonl(shared_data, name, split_by, split)]
        assert len(refer) == len(jsonl)
        total += len(refer)
        for ours, theirs in zip(refer, jsonl, strict=True):
            assert ours["conversations"] == theirs["conversations"]
            assert ours["truth"]["expression"] == theirs["truth"]["expression"]
            assert ours["image"].tobytes() == theirs["image"].tobytes()
            # The JSON lines were rounded to two decimals.
            assert ours["target"]["boxes"][0] == pytest.approx(theirs["target"]["boxes"][0], abs=0.0051)
    assert total == 115


def test_an_item_has_the_pixels_box_of_its_annotation(shared_data):
    # refs(unc).p: ref 0 is annotation 1262318 of image 370162, xywh [2.7, 70.72, 214.42, 325.23] in instances.json.
    item = _refer(shared_data, "refcoco", "unc", "val")[1]
    assert item["image"].size == (640, 400)
    assert item["target"]["boxes"][0] == pytest.approx([2.7, 70.72, 217.12, 395.95], abs=0.01)
    assert item["conversations"][0]["value"] == "Where is left bald in <image> ?"
    assert item["conversations"][1] == {"from": "gpt", "value": "Answer: <boxes> .", "boxes_seq": [[0]]}


def test_unknown_split_lists_the_known_ones(shared_data):
    with pytest.raises(ConfigError, match=r"refcocog \(umd\) has no split 'testA'.*known: test, train, val"):
        _refer(shared_data, "refcocog", "umd", "testA")


@pytest.fixture
def small(tmp_path):
    Image.new("RGB", (200, 100), "white").save(tmp_path / "a.png")

    def make(bbox, **options):
        path = tmp_path / "rec.jsonl"
        path.write_text(json.dumps({"img_path": "a.png", "expression": "it", "bbox": bbox}) + "\n")
        return DATASETS.build(
            dict(type="RECJsonl", path=str(path), image_root=str(tmp_path), questions=QUESTION, **options)
        )

    return make


@pytest.mark.parametrize(
    ("bbox", "bbox_format", "expected"),
    [
        ([20, 10, 60, 40], "xyxy", [20, 10, 60, 40]),
        ([20, 10, 40, 30], "xywh", [20, 10, 60, 40]),
        ([0.1, 0.1, 0.3, 0.4], "normalized_xyxy", [20, 10, 60, 40]),
    ],
)
def test_the_declared_box_format_is_converted_to_pixels(small, bbox, bbox_format, expected):
    assert list(small(bbox, bbox_format=bbox_format)[0]["target"]["boxes"][0]) == pytest.approx(expected)


def test_pixels_declared_as_normalised_stop(small):
    with pytest.raises(DataError, match=r"rec.jsonl:1: .* not in \[0, 1\]"):
        small([20, 10, 60, 40], bbox_format="normalized_xyxy")[0]


def test_a_pickle_that_names_a_class_is_refused(tmp_path):
    folder = tmp_path / "refcoco"
    folder.mkdir()
    (folder / "refs(unc).p").write_bytes(pickle.dumps([pathlike()]))
    (folder / "instances.json").write_text('{"annotations": []}')
    with pytest.raises(DataError, match="not a pickle of plain lists"):
        DATASETS.build(dict(type="RefCOCO", root=str(tmp_path), image_root=str(tmp_path)))


def pathlike():
    from pathlib import PurePosixPath

    return PurePosixPath("/")
