import gzip
import json

import pytest
from dataset.examples_grounding import draw, write_lines
from PIL import Image

from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS

QUESTION = "<image> Describe it."
# captions_val2017.json, image 397133: annotations 370509, 370584, 372252, 372765, 375891, in this order.
CAPTIONS = [
    "A man is in a kitchen making pizzas.",
    "Man in apron standing on front of oven with pans and bakeware",
    "A baker is working in the kitchen rolling dough.",
    "A person standing by a stove in a kitchen.",
    "A table with pies being made and a person standing near a wall with pots and pans hanging on the wall.",
]


def _coco(shared_data, **options):
    folder = shared_data / "coco_tiny"
    files = {"path": str(folder / "annotations/captions_val2017.json"), "image_root": str(folder / "val2017")}
    return DATASETS.build({"type": "COCOCaption", **files, "questions": QUESTION, **options})


def test_an_item_an_image_has_all_captions_as_references(shared_data):
    dataset = _coco(shared_data)
    assert len(dataset) == 50
    item = dataset[0]
    assert item["truth"] == {"references": CAPTIONS}
    assert item["meta"]["image_id"] == 397133
    assert item["image"].size == (640, 427)
    assert item["conversations"][0] == {"from": "human", "value": QUESTION}
    answers = {dataset.item(0, epoch)["conversations"][1]["value"] for epoch in range(60)}
    assert answers == set(CAPTIONS)


def test_an_item_a_caption_answers_with_its_own(shared_data):
    dataset = _coco(shared_data, per="caption")
    assert len(dataset) == 250
    item = dataset[0]
    assert item["conversations"][1]["value"] == CAPTIONS[0]
    assert item["truth"] == {"references": CAPTIONS}
    assert item["meta"]["caption_id"] == 370509
    own = [one["conversations"][1]["value"] for one in dataset if one["meta"]["image_id"] == 397133]
    assert own == CAPTIONS


def test_the_whole_official_file_is_joined(shared_data, tmp_path):
    # captions_val2017.json: 5,000 images, 25,014 captions.
    path = tmp_path / "captions_val2017.json"
    packed = shared_data / "coco_captions_val2017_full/captions_val2017.json.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    options = {"path": str(path), "image_root": str(shared_data / "coco_tiny/val2017"), "questions": QUESTION}
    images = DATASETS.build({"type": "COCOCaption", **options})
    captions = DATASETS.build({"type": "COCOCaption", **options, "per": "caption"})
    assert (len(images), len(captions)) == (5000, 25014)
    assert images[0]["truth"]["references"] == CAPTIONS
    with pytest.raises(DataError, match=r"captions_val2017.json:images\[\d+\]: .*.jpg: no such file"):
        list(images)


@pytest.fixture
def small(tmp_path):
    """Images 1 (two captions, one with spaces around it) and 2 (none), an annotation of the absent image 3."""

    def build(captions=("  A field. \n", "Grass"), image=1, **options):
        for name in ("a.png", "b.png"):
            draw(tmp_path / name)
        annotations = [{"id": 10 + n, "image_id": image, "caption": text} for n, text in enumerate(captions)]
        images = [{"id": 2, "file_name": "b.png"}, {"id": 1, "file_name": "a.png"}]
        path = tmp_path / "captions.json"
        path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
        files = {"path": str(path), "image_root": str(tmp_path), "questions": QUESTION}
        return DATASETS.build({"type": "COCOCaption", **files, **options})

    return build


def test_an_image_without_captions_is_left_out_and_captions_are_stripped(small):
    dataset = small()
    assert len(dataset) == 1
    assert dataset[0]["truth"]["references"] == ["A field.", "Grass"]
    assert dataset[0]["meta"]["image_id"] == 1


def test_a_test_set_has_every_image_and_no_answer(small, tmp_path):
    small()
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"images": [{"id": 2, "file_name": "b.png"}, {"id": 1, "file_name": "a.png"}]}))
    options = {"path": str(path), "image_root": str(tmp_path), "questions": QUESTION, "unlabelled": True}
    dataset = DATASETS.build({"type": "COCOCaption", **options})
    assert [item["meta"]["image_id"] for item in dataset] == [2, 1]
    assert dataset[0]["conversations"] == [{"from": "human", "value": QUESTION}]
    assert dataset.length_hint(0) == (1, 1)


def test_a_caption_of_an_absent_image_is_named(small):
    dataset = small(image=3, per="caption")
    with pytest.raises(DataError, match=r"captions.json:annotations\[0\]: id 3 is not in .*captions.json:images"):
        dataset[0]


def test_an_empty_caption_is_named(small):
    with pytest.raises(DataError, match=r"captions.json:annotations\[1\]: field 'caption' is empty"):
        small(captions=("A field.", " "))[0]


def test_ids_of_two_kinds_are_an_error(small, tmp_path):
    path = tmp_path / "captions.json"
    path.write_text('{"images": [{"id": 1, "file_name": "a"}, {"id": "2", "file_name": "b"}], "annotations": []}')
    with pytest.raises(
        DataError, match=r"captions.json:images: field 'id' is a number in some rows and text in others"
    ):
        DATASETS.build({"type": "COCOCaption", "path": str(path), "image_root": str(tmp_path)})


def test_a_wrong_per_is_an_error(shared_data):
    with pytest.raises(ConfigError, match="COCOCaption: per='images'; did you mean 'image'"):
        _coco(shared_data, per="images")


@pytest.fixture
def lines(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    rows = [("a.png", "A field. "), ("b.png", "Grass."), ("a.png", "Green land.")]
    path = write_lines(tmp_path / "c.jsonl", [{"img_path": name, "caption": text} for name, text in rows])

    def build(**options):
        files = {"path": path, "image_root": str(tmp_path), "questions": QUESTION}
        return DATASETS.build({"type": "CaptionJsonl", **files, **options})

    return build


def test_a_caption_line_is_an_item(lines):
    dataset = lines()
    assert [item["conversations"][1]["value"] for item in dataset] == ["A field.", "Grass.", "Green land."]
    assert [item["truth"]["references"] for item in dataset] == [["A field."], ["Grass."], ["Green land."]]
    assert dataset[2]["meta"]["image_id"] == "a.png"


def test_lines_of_one_image_are_joined_for_evaluation(lines):
    dataset = lines(per="image")
    assert [item["truth"]["references"] for item in dataset] == [["A field.", "Green land."], ["Grass."]]


def test_a_line_without_a_caption_is_named(lines, tmp_path):
    write_lines(tmp_path / "c.jsonl", [{"img_path": "a.png", "text": "A field."}])
    with pytest.raises(DataError, match=r"c.jsonl:1: field 'caption' is missing; the row has img_path, text"):
        lines()[0]
