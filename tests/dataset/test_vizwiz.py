import json

import pytest
from dataset.examples_grounding import draw

from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS

PRECANNED = "Quality issues are too severe to recognize visual content."


def _captions(shared_data, **options):
    folder = shared_data / "vizwiz_mini"
    files = {"path": str(folder / "annotations/val.json"), "image_root": str(folder / "val")}
    return DATASETS.build({"type": "VizWizCaption", **files, **options})


def _questions(shared_data, **options):
    folder = shared_data / "vizwiz_mini"
    files = {
        "path": str(folder / "annotations/vqa_val_questions_vqa_format.json"),
        "annotations": str(folder / "annotations/vqa_val_annotations_vqa_format.json"),
        "image_root": str(folder / "val"),
    }
    return DATASETS.build({"type": "VizWizVQA", **files, "layout": "vqa", **options})


def test_precanned_captions_and_their_images_are_left_out(shared_data):
    # val.json: 32 images with 38 captions, six of them precanned, each the only one of its image.
    dataset = _captions(shared_data)
    assert len(dataset) == 26
    assert {23654, 24065, 24115, 24686, 24698, 24704}.isdisjoint(item["meta"]["image_id"] for item in dataset)
    assert len(_captions(shared_data, per="caption")) == 32
    kept = _captions(shared_data, keep_precanned=True)
    assert len(kept) == 32
    assert [item["truth"]["references"] for item in kept if item["meta"]["image_id"] == 23654] == [[PRECANNED]]


def test_what_counts_is_the_field_and_not_the_text(shared_data):
    # Annotations 117190 and 117191 of image 23438 are not marked as precanned, although one has the precanned text.
    item = next(item for item in _captions(shared_data) if item["meta"]["image_id"] == 23438)
    assert item["truth"]["references"] == ["A close-up of a package of a computer-related item.", PRECANNED]


def test_a_turned_photograph_is_shown_upright(shared_data):
    # VizWiz_val_00000010.jpg is stored as 960 × 720 with EXIF orientation 6, a quarter turn.
    row = next(i for i, row in enumerate(_captions(shared_data).rows) if row["img_path"] == "VizWiz_val_00000010.jpg")
    assert _captions(shared_data)[row]["image"].size == (720, 960)
    assert _captions(shared_data, exif="ignore")[row]["image"].size == (960, 720)
    with pytest.raises(DataError, match="EXIF orientation 6"):
        _captions(shared_data, exif="error")[row]


@pytest.fixture
def marked(tmp_path):
    draw(tmp_path / "a.jpg")
    flags = [(False, False), (True, False), (False, True)]
    annotations = [
        {
            "id": n,
            "image_id": 7,
            "caption": f"Caption {n}.",
            "is_rejected": rejected,
            "is_precanned": precanned,
            "text_detected": True,
        }
        for n, (rejected, precanned) in enumerate(flags)
    ]
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": annotations}))

    def build(**options):
        return DATASETS.build({"type": "VizWizCaption", "path": str(path), "image_root": str(tmp_path), **options})

    return build


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["Caption 0."]),
        ({"keep_rejected": True}, ["Caption 0.", "Caption 1."]),
        ({"keep_precanned": True}, ["Caption 0.", "Caption 2."]),
        ({"keep_rejected": True, "keep_precanned": True}, ["Caption 0.", "Caption 1.", "Caption 2."]),
    ],
)
def test_rejected_and_precanned_captions_are_kept_on_demand(marked, options, expected):
    item = marked(**options)[0]
    assert item["truth"]["references"] == expected
    assert item["meta"]["text_detected"] is True


def test_the_challenge_set_has_every_image(marked, tmp_path):
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"images": [{"id": 7, "file_name": "a.jpg"}]}))
    item = DATASETS.build(
        {"type": "VizWizCaption", "path": str(path), "image_root": str(tmp_path), "unlabelled": True}
    )[0]
    assert [turn["from"] for turn in item["conversations"]] == ["human"]
    assert item["meta"]["image_id"] == 7


def test_ten_answers_are_the_truth_and_the_most_frequent_is_trained(shared_data):
    # Question 1: five of ten answers are "night time", although the file's multiple_choice_answer is "no".
    dataset = _questions(shared_data)
    assert len(dataset) == 32
    item = dataset[1]
    assert item["conversations"] == [
        {"from": "human", "value": "<image>\nCan you tell me what this medicine is please?"},
        {"from": "gpt", "value": "night time"},
    ]
    assert item["truth"]["answers"] == [
        "no",
        "unanswerable",
        "night time",
        "unanswerable",
        "night time",
        "night time cold medicine",
        "night time",
        "night time",
        "night time",
        "night time medicine",
    ]
    assert item["meta"]["question_id"] == 1
    assert item["meta"]["image_id"] == "VizWiz_val_00000001.jpg"
    # Question 2 is "What is the title of this book? " with a space at its end.
    assert dataset[2]["conversations"][0]["value"] == "<image>\nWhat is the title of this book?"


def test_the_authors_layout_gives_the_same_items(shared_data, tmp_path):
    folder = shared_data / "vizwiz_mini/annotations"
    questions = json.loads((folder / "vqa_val_questions_vqa_format.json").read_text())["questions"]
    annotations = json.loads((folder / "vqa_val_annotations_vqa_format.json").read_text())["annotations"]
    rows = [
        {
            "image": question["image_id"],
            "question": question["question"],
            "answers": annotation["answers"],
            "answer_type": annotation["question_type"],
            "answerable": int(annotation["question_type"] != "unanswerable"),
        }
        for question, annotation in zip(questions, annotations, strict=True)
    ]
    path = tmp_path / "val.json"
    path.write_text(json.dumps(rows))
    own = DATASETS.build({"type": "VizWizVQA", "path": str(path), "image_root": str(shared_data / "vizwiz_mini/val")})
    for item, other in zip(own, _questions(shared_data), strict=True):
        assert item["conversations"][0] == other["conversations"][0]
        assert item["truth"] == other["truth"]
    assert own[0]["meta"]["answerable"] == 0
    assert own[0]["meta"]["category"] == "unanswerable"


def test_a_question_of_a_test_set_has_no_answer(tmp_path):
    draw(tmp_path / "a.jpg")
    path = tmp_path / "test.json"
    path.write_text(json.dumps([{"image": "a.jpg", "question": "What is it?"}]))
    item = DATASETS.build({"type": "VizWizVQA", "path": str(path), "image_root": str(tmp_path)})[0]
    assert item["conversations"] == [{"from": "human", "value": "<image>\nWhat is it?"}]
    assert "answers" not in item["truth"]


def test_a_question_without_annotation_is_named(shared_data, tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text('{"annotations": [{"question_id": 0, "image_id": "a", "answers": [{"answer": "no"}]}]}')
    dataset = _questions(shared_data, annotations=str(path))
    assert dataset[0]["truth"]["answers"] == ["no"]
    with pytest.raises(DataError, match=r"questions\[1\]: question_id 1 is not in .*annotations.json:annotations"):
        dataset[1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.jpg", "question": "What?", "answers": []}, "field 'answers' must be a list of answers"),
        ({"image": "b.jpg", "question": "What?"}, "b.jpg: no such file"),
        ({"question": "What?"}, "field 'image' is missing"),
        ({"image": "a.jpg", "question": None}, "field 'question' must be text, got None"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    draw(tmp_path / "a.jpg")
    path = tmp_path / "val.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"val.json\[0\]: .*" + message):
        DATASETS.build({"type": "VizWizVQA", "path": str(path), "image_root": str(tmp_path)})[0]


def test_a_wrong_layout_is_an_error(shared_data):
    with pytest.raises(ConfigError, match="VizWizVQA: layout='vqa2'; did you mean 'vqa'"):
        _questions(shared_data, layout="vqa2")
