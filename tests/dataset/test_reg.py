import json

import pytest
from PIL import Image

from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS

QUESTION = "<image> What is at <objs>?"


def _lines(shared_data, kind="REGJsonl", **options):
    root = shared_data / "refcoco_mini"
    return DATASETS.build(
        {
            "type": kind,
            "path": str(root / "shikra_jsonl/REC_refcoco_unc_val.jsonl"),
            "image_root": str(root / "images/train2014"),
            "questions": QUESTION,
            **options,
        }
    )


def _refer(shared_data, **options):
    root = shared_data / "refcoco_mini"
    common = {"root": str(root), "image_root": str(root / "images/train2014"), "questions": QUESTION}
    return DATASETS.build({"type": "RefCOCOReverse", **common, "split": "val", **options})


@pytest.mark.parametrize("kind", ["REGJsonl", "GCJsonl"])
def test_the_box_is_asked_about_and_the_expression_answers(shared_data, kind):
    # Line 2: "left bald", bbox [2.7, 70.72, 217.12, 395.95] on COCO_train2014_000000370162.jpg (640 × 400).
    item = _lines(shared_data, kind)[1]
    assert item["image"].size == (640, 400)
    assert item["target"] == {"boxes": [(2.7, 70.72, 217.12, 395.95)]}
    assert item["conversations"] == [
        {"from": "human", "value": "<image> What is at <boxes>?", "boxes_seq": [[0]]},
        {"from": "gpt", "value": "left bald"},
    ]
    assert item["truth"] == {"references": ["left bald"], "boxes": [[2.7, 70.72, 217.12, 395.95]]}
    assert item["meta"]["source"] == "refcoco"
    assert item["meta"]["image_id"] == "COCO_train2014_000000370162.jpg"


def test_both_layouts_give_the_same_answers(shared_data):
    refer, lines = list(_refer(shared_data)), list(_lines(shared_data))
    assert [item["conversations"] for item in refer] == [item["conversations"] for item in lines]
    assert len(refer) > 10


def test_an_object_has_all_its_sentences_as_references(shared_data):
    # refs(unc).p, ref 0: "guy on left getting or giving food", "left bald", "bald guy on left".
    sentences = ["guy on left getting or giving food", "left bald", "bald guy on left"]
    dataset = _refer(shared_data)
    assert [dataset[index]["conversations"][1]["value"] for index in range(3)] == sentences
    assert all(dataset[index]["truth"]["references"] == sentences for index in range(3))
    per_ref = _refer(shared_data, per="ref")
    assert per_ref[0]["truth"]["references"] == sentences
    assert len({item["meta"]["ref_id"] for item in per_ref}) == len(per_ref) < len(dataset)


def test_expressions_are_filtered_by_their_words(shared_data):
    # Words of the first five lines: 7, 2, 4, 5 and 4 ("person reaching into bucket").
    counts = [len(item["truth"]["references"][0].split()) for item in _lines(shared_data)]
    assert counts[:5] == [7, 2, 4, 5, 4]
    kept = _lines(shared_data, caption_min_words=3, caption_max_words=4)
    assert len(kept) == sum(3 <= count <= 4 for count in counts)
    assert kept[0]["conversations"][1]["value"] == "bald guy on left"
    assert len(_lines(shared_data, caption_min_words=3)) == sum(count >= 3 for count in counts)
    assert len(_lines(shared_data, caption_max_words=2)) == sum(count <= 2 for count in counts)


def test_a_filter_that_keeps_nothing_by_its_numbers_is_an_error(shared_data):
    with pytest.raises(ConfigError, match="REGJsonl: caption_min_words=5 is above caption_max_words=4"):
        _lines(shared_data, caption_min_words=5, caption_max_words=4)


def test_a_wrong_per_is_an_error(shared_data):
    with pytest.raises(ConfigError, match="RefCOCOReverse: per='sentences'; did you mean 'sentence'"):
        _refer(shared_data, per="sentences")


def test_grounded_captions_lose_their_trailing_spaces(shared_data, tmp_path):
    # Visual Genome's lines in Shikra's form; line 2 is "shade is along the street " at [194, 372, 376, 481].
    (tmp_path / "VG_100K_2").mkdir()
    Image.new("RGB", (800, 600)).save(tmp_path / "VG_100K_2" / "1.jpg")
    path = shared_data / "visual_genome_mini/GC_genome_mini.jsonl"
    dataset = DATASETS.build({"type": "GCJsonl", "path": str(path), "image_root": str(tmp_path)})
    item = dataset[1]
    assert len(dataset) == 300
    assert item["conversations"][1]["value"] == "shade is along the street"
    assert item["target"]["boxes"] == [(194, 372, 376, 481)]
    assert item["meta"]["source"] == "genome196"
    assert item["conversations"][0]["value"].count("<boxes>") == 1


def test_normalised_boxes_are_declared_and_become_pixels(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    path = tmp_path / "gc.jsonl"
    path.write_text(json.dumps({"img_path": "a.png", "expression": "it", "bbox": [0.1, 0.1, 0.3, 0.4]}) + "\n")
    options = {"path": str(path), "image_root": str(tmp_path)}
    # × (200, 100): 0.1 → 20, 10; 0.3 → 60; 0.4 → 40.
    item = DATASETS.build({"type": "REGJsonl", **options, "bbox_format": "normalized_xyxy"})[0]
    assert item["target"]["boxes"][0] == pytest.approx((20, 10, 60, 40))
    with pytest.raises(ConfigError, match="REGJsonl: bbox_format='normalised'; did you mean 'normalized_xyxy'"):
        DATASETS.build({"type": "REGJsonl", **options, "bbox_format": "normalised"})


def test_a_missing_field_is_named(tmp_path):
    path = tmp_path / "gc.jsonl"
    path.write_text(json.dumps({"img_path": "a.png", "bbox": [1, 2, 3, 4]}) + "\n")
    with pytest.raises(DataError, match=r"gc.jsonl:1: field 'expression' is missing"):
        DATASETS.build({"type": "GCJsonl", "path": str(path), "image_root": str(tmp_path), "caption_min_words": 1})
