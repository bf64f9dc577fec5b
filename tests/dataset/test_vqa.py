"""VQAv2, TextVQA, GQA and POPE."""

import gzip
import json

import pytest
from PIL import Image

from mllm.dataset.tasks import most_frequent
from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import Item, check_item

TEN = ["net", "net", "racket", "net", "net", "net", "racket", "tennis net", "net", "net"]


def checked(raw):
    item = Item.from_dict(raw)
    check_item(item)
    return item


@pytest.fixture
def vqav2(tmp_path):
    """Three questions about two images, in the official layout."""
    for number in (42, 73):
        Image.new("RGB", (10, number)).save(tmp_path / f"COCO_val2014_{number:012d}.jpg")
    questions = [
        {"image_id": 42, "question": "What is this?", "question_id": 42000},
        {"image_id": 42, "question": "Is it red?", "question_id": 42001},
        {"image_id": 73, "question": "How many?", "question_id": 73000},
    ]
    answers = {42000: TEN, 42001: ["yes"] * 10, 73000: ["2"] * 5 + ["3"] * 5}
    annotations = [
        {
            "question_id": one["question_id"],
            "image_id": one["image_id"],
            "question_type": one["question"].split()[0].lower(),
            "answer_type": "yes/no" if one["question_id"] == 42001 else "other",
            "multiple_choice_answer": "3" if one["question_id"] == 73000 else answers[one["question_id"]][0],
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": number}
                for number, answer in enumerate(answers[one["question_id"]], start=1)
            ],
        }
        for one in questions
    ]

    def make(order=(0, 1, 2), **options):
        (tmp_path / "q.json").write_text(json.dumps({"info": {"version": "2.0"}, "questions": questions}))
        (tmp_path / "a.json").write_text(json.dumps({"annotations": [annotations[i] for i in order]}))
        arguments = dict(path=str(tmp_path / "q.json"), image_root=str(tmp_path))
        if order:
            arguments["annotations"] = str(tmp_path / "a.json")
        return DATASETS.build(dict(type="VQAv2", **arguments, **options))

    return make


def test_vqav2_trains_the_most_frequent_answer_and_keeps_all_ten(vqav2):
    item = checked(vqav2()[0])
    assert [turn.text for turn in item.conversations] == ["<image>\nWhat is this?", "net"]
    assert item.truth["answers"] == TEN
    assert item.images[0].size == (10, 42)
    expected = {"question_id": 42000, "category": "other", "question_type": "what"}
    assert {key: item.meta[key] for key in expected} == expected
    assert item.meta["image_id"] == "COCO_val2014_000000000042.jpg"


def test_of_equally_frequent_answers_the_official_one_is_trained(vqav2):
    assert vqav2()[2]["conversations"][1]["value"] == "3"
    assert most_frequent(["2", "3", "3", "2"]) == "2"
    assert most_frequent(["a", "b", "b"], preferred="a") == "b"


def test_annotations_are_found_in_any_order(vqav2):
    in_order, shuffled = list(vqav2()), list(vqav2(order=(2, 0, 1)))
    assert [item["truth"] for item in in_order] == [item["truth"] for item in shuffled]


def test_a_question_without_annotation_is_named(vqav2):
    with pytest.raises(DataError, match=r"q.json:questions\[1\]: question_id 42001 is not in .*a.json:annotations"):
        vqav2(order=(0, 2))[1]


def test_a_test_set_has_questions_alone(vqav2):
    item = checked(vqav2(order=())[0])
    assert [turn.role for turn in item.conversations] == ["human"]
    assert "answers" not in item.truth


def test_templates_ask_the_question(vqav2):
    item = vqav2(questions="<image> <question> Answer briefly.")[1]
    assert item["conversations"][0]["value"] == "<image> Is it red? Answer briefly."


def test_a_pattern_that_does_not_fit_is_an_error(vqav2):
    with pytest.raises(
        DataError, match=r"questions\[0\]: the file pattern '{id}.jpg' cannot be filled with image_id=42"
    ):
        vqav2(image_pattern="{id}.jpg")[0]


def test_a_missing_image_is_named_with_its_row(vqav2):
    with pytest.raises(DataError, match=r"q.json:questions\[0\]: .*42.png: no such file"):
        vqav2(image_pattern="{image_id}.png")[0]


def test_vizwiz_in_vqav2s_layout_is_read(shared_data):
    # Question 0 of the file, with eight "unanswerable" among its ten answers.
    folder = shared_data / "vizwiz_mini"
    dataset = DATASETS.build(
        dict(
            type="VQAv2",
            path=str(folder / "annotations" / "vqa_val_questions_vqa_format.json"),
            annotations=str(folder / "annotations" / "vqa_val_annotations_vqa_format.json"),
            image_root=str(folder / "val"),
            image_pattern="{image_id}",
            exif="ignore",
        )
    )
    item = checked(dataset[0])
    assert item.conversations[0].text == "<image>\nOk. There is another picture I hope it is a better one."
    assert item.conversations[1].text == "unanswerable"
    assert item.truth["answers"].count("unanswerable") == 8
    assert all(len(checked(raw).truth["answers"]) == 10 for raw in dataset)


@pytest.fixture
def textvqa_files(shared_data, tmp_path):
    paths = {}
    for part in ("questions", "annotations"):
        source = shared_data / "llava15_eval_outputs" / "textvqa" / f"val_{part}_vqa_format.json.gz"
        paths[part] = tmp_path / f"{part}.json"
        paths[part].write_bytes(gzip.decompress(source.read_bytes()))
    Image.new("RGB", (7, 5)).save(tmp_path / "003a8ae2ef43b901.jpg")
    return paths


def test_textvqa_in_vqav2s_layout_trains_what_most_people_said(textvqa_files, tmp_path):
    # Question 34602 of image 003a8ae2ef43b901: five of ten said "dakota", three "dakota digital"; the file's
    # multiple_choice_answer is "nous les gosses", which one person gave.
    dataset = DATASETS.build(
        dict(
            type="TextVQA",
            layout="vqa",
            path=str(textvqa_files["questions"]),
            annotations=str(textvqa_files["annotations"]),
            image_root=str(tmp_path),
        )
    )
    assert len(dataset) == 5000
    item = checked(dataset[0])
    assert [turn.text for turn in item.conversations] == ["<image>\nwhat is the brand of this camera?", "dakota"]
    assert len(item.truth["answers"]) == 10
    assert item.truth["answers"].count("dakota digital") == 3
    assert item.meta["question_id"] == 34602


@pytest.fixture
def textvqa(tmp_path):
    Image.new("RGB", (7, 5)).save(tmp_path / "ab12.jpg")

    def make(rows):
        path = tmp_path / "TextVQA_0.5.1_val.json"
        path.write_text(json.dumps({"dataset_type": "val", "dataset_name": "textvqa", "data": rows}))
        return DATASETS.build(dict(type="TextVQA", path=str(path), image_root=str(tmp_path)))

    return make


def test_textvqa_in_its_own_layout(textvqa):
    row = {"question": "what is written?", "question_id": 1, "image_id": "ab12", "image_classes": ["Sign"]}
    item = checked(textvqa([{**row, "answers": ["stop", "Stop", "stop", *["halt"] * 7]}])[0])
    assert item.conversations[1].text == "halt"
    assert item.truth["answers"][:3] == ["stop", "Stop", "stop"]
    unanswered = checked(textvqa([row])[0])
    assert [turn.role for turn in unanswered.conversations] == ["human"]


def test_textvqa_names_what_it_cannot_read(textvqa, textvqa_files, tmp_path):
    row = {"question": "what?", "question_id": 1, "image_id": "ab12"}
    with pytest.raises(DataError, match=r"val.json:data\[0\]: field 'answers' must be a list of answers"):
        textvqa([{**row, "answers": [1, 2]}])[0]
    with pytest.raises(DataError, match=r"val.json:data\[0\]: field 'question' must be text, got 3"):
        textvqa([{**row, "question": 3}])[0]
    with pytest.raises(DataError, match="an array under 'data'"):
        DATASETS.build(dict(type="TextVQA", path=str(textvqa_files["questions"]), image_root=str(tmp_path)))
    with pytest.raises(ConfigError, match="layout='vqav2'; did you mean 'vqa'"):
        DATASETS.build(dict(type="TextVQA", path="x", image_root=str(tmp_path), layout="vqav2"))


GQA_ROW = {
    "question": 'What color is the "big" car?',
    "answer": "red",
    "fullAnswer": "The car is red.",
    "imageId": "2370799",
    "types": {"structural": "query", "semantic": "attr"},
    "semantic": [{"operation": "select: car", "dependencies": [], "argument": "car (7)"}],
    "annotations": {"question": {"5": "7"}, "answer": {}, "fullAnswer": {}},
}


@pytest.fixture
def gqa(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "2370799.jpg")

    def make(rows, **options):
        (tmp_path / "gqa.json").write_text(json.dumps(rows))
        return DATASETS.build(dict(type="GQA", path=str(tmp_path / "gqa.json"), image_root=str(tmp_path), **options))

    return make


def test_gqa_trains_the_word_or_the_sentence(gqa):
    rows = {"05451384": GQA_ROW, "06451391": {**GQA_ROW, "question": "Is it?", "answer": "yes", "fullAnswer": "Yes."}}
    dataset = gqa(rows)
    assert len(dataset) == 2
    item = checked(dataset[0])
    assert [turn.text for turn in item.conversations] == ['<image>\nWhat color is the "big" car?', "red"]
    assert item.truth["answers"] == ["red"]
    expected = {"question_id": "05451384", "image_id": "2370799.jpg", "category": "query"}
    assert {key: item.meta[key] for key in expected} == expected
    sentence = gqa(rows, answer="fullAnswer")[1]
    assert sentence["conversations"][1]["value"] == "Yes."
    assert sentence["truth"]["answers"] == ["yes"]
    assert dataset.length_hint(1) == (len("Is it?") + len("yes"), 1)


def test_gqa_without_answers_and_with_a_missing_field(gqa):
    unanswered = {key: value for key, value in GQA_ROW.items() if key not in ("answer", "fullAnswer")}
    assert len(gqa({"1": unanswered})[0]["conversations"]) == 1
    with pytest.raises(DataError, match=r"gqa.json\[1\]: field 'imageId' is missing"):
        gqa({"1": {"question": "What?"}})[0]


def test_pope_reads_lines_and_takes_the_setting_from_the_name(shared_data):
    # Line 1 of coco_pope_random.json: question 133, "Is there a tv in the image?", yes; 36 questions a setting.
    root = shared_data / "pope_mini"
    for setting in ("random", "popular", "adversarial"):
        path = root / "coco" / f"coco_pope_{setting}.json"
        dataset = DATASETS.build(dict(type="POPE", path=str(path), image_root=str(root / "val2014")))
        assert len(dataset) == 36
        items = [checked(raw) for raw in dataset]
        assert {item.meta["category"] for item in items} == {setting}
        assert sorted({item.truth["answers"][0] for item in items}) == ["no", "yes"]
        if setting == "random":
            assert [turn.text for turn in items[0].conversations] == ["<image>\nIs there a tv in the image?", "yes"]
            assert items[0].meta["question_id"] == 133
            assert items[0].meta["image_id"] == "COCO_val2014_000000516916.jpg"


def test_pope_refuses_another_label(tmp_path):
    path = tmp_path / "coco_pope_random.json"
    path.write_text(json.dumps({"question_id": 1, "image": "a.jpg", "text": "Is there a cat?", "label": "Yes"}))
    dataset = DATASETS.build(dict(type="POPE", path=str(path), image_root=str(tmp_path)))
    with pytest.raises(DataError, match=r"random.json:1: field 'label' must be 'yes' or 'no', got 'Yes'"):
        dataset[0]
