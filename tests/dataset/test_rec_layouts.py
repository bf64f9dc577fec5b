import gzip
import json
import pickle

import pytest
from PIL import Image

from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS

QUESTION = "Where is <expr> in <image> ?"
FLAT = {
    "refcoco": ("unc", "val+testA+testB"),
    "refcoco+": ("unc", "val+testA+testB"),
    "refcocog": ("umd", "val+test"),
}


def _build(kind, **options):
    return DATASETS.build({"type": kind, "questions": QUESTION, **options})


def _order(item):
    return item["meta"]["image_id"], item["truth"]["expression"], item["truth"]["boxes"][0]


def test_the_flat_files_of_others_give_the_items_of_the_refer_layout(shared_data, tmp_path):
    images = shared_data / "refcoco_mini/images/train2014"
    present = {path.stem for path in images.iterdir()}
    total = 0
    for name, (split_by, splits) in FLAT.items():
        rows = []
        for split in splits.split("+"):
            with gzip.open(shared_data / f"refcoco_eval_full/{name}_{split}.json.gz") as stream:
                rows += [row for row in json.load(stream) if row["img_id"].rpartition("_")[0] in present]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows))
        flat = _build("RECFlatJson", path=str(path), image_root=str(images))
        root = str(shared_data / "refcoco_mini")
        refer = _build("RefCOCO", root=root, image_root=str(images), name=name, split_by=split_by, split=splits)
        pairs = zip(sorted(flat, key=_order), sorted(refer, key=_order), strict=True)
        for item, other in pairs:
            total += 1
            assert _order(item)[:2] == _order(other)[:2]
            assert item["conversations"] == other["conversations"]
            # instances.json has more decimals than the two of the flat files.
            assert item["truth"]["boxes"][0] == pytest.approx(other["truth"]["boxes"][0], abs=0.06)
    assert total == 115


def test_a_whole_flat_file_is_read_with_its_boxes_turned_to_corners(shared_data, tmp_path):
    path = tmp_path / "refcoco_testA.json"
    path.write_bytes(gzip.decompress((shared_data / "refcoco_eval_full/refcoco_testA.json.gz").read_bytes()))
    dataset = _build("RECFlatJson", path=str(path), image_root=str(tmp_path))
    # RefCOCO testA has 5,657 sentences. First row: bbox [3.24, 159.31, 156.4, 312.81], xywh: 3.24 + 156.4 = 159.64 and
    # 159.31 + 312.81 = 472.12; img_id COCO_train2014_000000581282_10.
    assert len(dataset) == 5657
    row = dataset.rows[0]
    assert row["bbox"] == pytest.approx((3.24, 159.31, 159.64, 472.12))
    assert (row["img_path"], row["ref_id"]) == ("COCO_train2014_000000581282.jpg", 10)
    with pytest.raises(DataError, match=r"refcoco_testA.json\[0\]: .*COCO_train2014_000000581282.jpg: no such file"):
        dataset[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"flat.json\[0\]: field 'bbox' must be four numbers, got \[1, 2, 3\]"),
        ({"img_id": "COCO_train2014"}, r"flat.json\[0\]: field 'img_id' must be IMAGE_REFERENCE"),
        ({"sents": ["a", "b"]}, r"flat.json\[0\]: field 'sents' must be text"),
        ({"sents": "  "}, r"flat.json\[0\]: field 'expression' is empty"),
    ],
)
def test_a_wrong_flat_row_is_named(tmp_path, change, message):
    Image.new("RGB", (200, 100)).save(tmp_path / "COCO_train2014_1.jpg")
    row = {"img_id": "COCO_train2014_1_7", "sents": "it", "bbox": [1, 2, 30, 40], "height": 100, "width": 200}
    path = tmp_path / "flat.json"
    path.write_text(json.dumps([{**row, **change}]))
    with pytest.raises(DataError, match=message):
        _build("RECFlatJson", path=str(path), image_root=str(tmp_path))[0]


@pytest.fixture
def refer_folder(tmp_path):
    """Two data sets of one reference an image; images 1 and 2, image 2 in the test set of the second."""

    def ref(number, image, split):
        sentences = [
            {"sent": text, "raw": text, "tokens": [], "sent_id": 0} for text in ("the cup ", "a cup on a table")
        ]
        names = {"file_name": f"COCO_train2014_{image}_{number}.jpg", "sent_ids": [0, 1], "category_id": 1}
        return {"ref_id": number, "ann_id": image, "image_id": image, "split": split, "sentences": sentences, **names}

    def write(name, split_by, splits):
        folder = tmp_path / name
        folder.mkdir()
        refs = [ref(number, image, split) for number, (image, split) in enumerate(splits)]
        (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(refs, protocol=2))
        annotations = [{"id": 1, "bbox": [10, 20, 30, 40]}, {"id": 2, "bbox": [1, 2, 3, 4]}]
        (folder / "instances.json").write_text(json.dumps({"annotations": annotations}))

    write("refcoco", "unc", [(1, "train"), (2, "train"), (2, "val")])
    write("refcocog", "umd", [(1, "train"), (2, "test")])
    write("refclef", "unc", [(1, "testC")])
    for name in ("COCO_train2014_000000000001.jpg", "COCO_train2014_000000000002.jpg", "1.jpg"):
        Image.new("RGB", (200, 100)).save(tmp_path / name)
    return {"root": str(tmp_path), "image_root": str(tmp_path)}


def test_refclef_images_bear_their_id_alone(refer_folder):
    dataset = _build("RefCOCO", **refer_folder, name="refclef", split="testC")
    assert len(dataset) == 2
    item = dataset[0]
    # xywh [10, 20, 30, 40] → right 10 + 30, bottom 20 + 40.
    assert item["target"]["boxes"] == [(10, 20, 40, 60)]
    assert item["meta"]["image_id"] == "1.jpg"
    assert item["truth"]["expression"] == "the cup"


def test_held_out_splits_take_their_images_with_them(refer_folder):
    whole = _build("RefCOCO", **refer_folder, split="train")
    without = _build("RefCOCO", **refer_folder, split="train", held_out=["refcocog/umd/test"])
    assert [item["meta"]["image_id"][-5:] for item in whole] == ["1.jpg", "1.jpg", "2.jpg", "2.jpg"]
    assert [item["meta"]["image_id"][-5:] for item in without] == ["1.jpg", "1.jpg"]


def test_a_wrong_held_out_split_is_an_error(refer_folder):
    with pytest.raises(ConfigError, match="held_out='refcocog': expected 'name/split_by/split"):
        _build("RefCOCO", **refer_folder, held_out=["refcocog"])
    with pytest.raises(ConfigError, match=r"refcocog \(umd\) has no split 'testA'"):
        _build("RefCOCO", **refer_folder, held_out=["refcocog/umd/testA"])


def test_a_reference_to_a_missing_annotation_is_named(refer_folder, tmp_path):
    (tmp_path / "refcoco" / "instances.json").write_text('{"annotations": [{"id": 2, "bbox": [1, 2, 3, 4]}]}')
    with pytest.raises(DataError, match=r"refs\(unc\).p\[0\]: ann_id 1 of ref 0 is not in instances.json"):
        _build("RefCOCO", **refer_folder)


def test_the_truth_tells_the_other_objects_of_the_image_where_the_annotations_do(refer_folder, tmp_path):
    assert "other_boxes" not in _build("RefCOCO", **refer_folder)[0]["truth"]
    annotations = [{"id": number, "image_id": 1, "bbox": [10 * number, 20, 30, 40]} for number in (1, 3, 4)]
    annotations += [{"id": 2, "image_id": 2, "bbox": [1, 2, 3, 4]}]
    annotations[2]["iscrowd"] = 1  # stands for many
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps({"annotations": annotations}))
    truths = [item["truth"] for item in _build("RefCOCO", **refer_folder)]
    # xywh [30, 20, 30, 40] → right 30 + 30, bottom 20 + 40.
    assert [truth["other_boxes"] for truth in truths] == [[[30, 20, 60, 60]]] * 2 + [[]] * 2


def test_an_answer_without_its_placeholder_is_an_error(refer_folder):
    with pytest.raises(ConfigError, match="RefCOCO: answer='here'; expected <boxes>"):
        _build("RefCOCO", **refer_folder, answer="here")
