import json

import pytest
from PIL import Image

from mllm.dataset.mixture import hint_of
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.structures import Item, check_item


@pytest.fixture
def instruct(tmp_path):
    """Writes records as an array or as lines beside an image ``a.png`` and builds the data set."""
    Image.new("RGB", (8, 6), "white").save(tmp_path / "a.png")

    def make(records, lines=False, **options):
        path = tmp_path / ("data.jsonl" if lines else "data.json")
        text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=2)
        path.write_text(text, encoding="utf-8")
        return DATASETS.build(dict(type="LLaVAInstruct", path=str(path), image_root=str(tmp_path), **options))

    return make


def record(question, image="a.png", key="conversations", **fields):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "White."}]
    return {"id": "7", **({"image": image} if image else {}), key: turns, **fields}


def checked(raw):
    item = Item.from_dict(raw)
    check_item(item)
    return item


def test_xtuners_tutorial_file_is_read_whole(shared_data):
    # unique_data.json: six records about test_img/oph.jpg with 10, 10, 10, 10, 10 and 12 turns; the third turn of the
    # first is "Describe the objects and people in this image."
    root = shared_data / "xtuner_tutorial" / "llava_data"
    dataset = DATASETS.build(
        dict(type="LLaVAInstruct", path=str(root / "unique_data.json"), image_root=str(root), exif="ignore")
    )
    items = [checked(raw) for raw in dataset]
    assert [len(item.conversations) for item in items] == [10, 10, 10, 10, 10, 12]
    assert items[0].conversations[0].text == "<image>\nDescribe this image."
    assert items[0].conversations[2].text == "Describe the objects and people in this image."
    assert items[0].meta["image_id"] == "test_img/oph.jpg"
    assert items[0].meta["question_id"] == "4672496731"
    assert items[0].images[0].size == Image.open(root / "test_img" / "oph.jpg").size


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("question", ["<image>\nColour?", "Colour?\n<image>", "In <image> , which colour?"])
def test_the_image_may_stand_first_last_or_in_the_middle(instruct, question, lines):
    item = checked(instruct([record(question)], lines)[0])
    assert item.conversations[0].text == question
    assert [image.size for image in item.images] == [(8, 6)]


@pytest.mark.parametrize("absent", [{}, {"image": None}, {"image": ""}])
def test_a_record_without_image_is_a_conversation_of_text(instruct, absent):
    dataset = instruct([{**record("What is white?", image=None), **absent}])
    item = checked(dataset[0])
    assert item.images == []
    assert "image_id" not in item.meta
    # "What is white?" and "White." are 14 and 6 characters.
    assert hint_of(dataset, 0) == (20, 0)


def test_several_images_are_shown_in_their_order(instruct, tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "b.png")
    item = checked(instruct([record("<image> or <image> ?", image=["b.png", "a.png"])])[0])
    assert [image.size for image in item.images] == [(3, 3), (8, 6)]


def test_the_prefix_stands_before_the_file_name_and_once(instruct, tmp_path):
    (tmp_path / "coco").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "coco" / "COCO_train2014_1.png")
    names = ("coco/1.png", "coco/COCO_train2014_1.png")
    dataset = instruct([record("<image>", image=name) for name in names], image_prefix="COCO_train2014_")
    assert [item["meta"]["image_id"] for item in dataset] == ["coco/COCO_train2014_1.png"] * 2
    assert dataset[0]["images"][0].size == (5, 4)


def test_the_misspelt_field_is_named_with_the_option_that_reads_it(instruct):
    records = [record("<image>", key="conversation")]
    with pytest.raises(DataError, match=r"data.json\[0\]: field 'conversations' is missing but there is 'conv"):
        instruct(records)[0]
    item = checked(instruct(records, conversations_key="conversation")[0])
    assert item.conversations[1].text == "White."


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record("<image>"), {"id": "8", "image": "a.png"}], r"data.json\[1\]: field 'conversations' is missing"),
        ([record("<image>"), record("<image>", image=3)], r"data.json\[1\]: field 'image' must be a name"),
        ([record("<image>"), record("<image>", image="no.png")], r"data.json\[1\]: .*no.png: no such file"),
        ([record("<image>"), record("<image>", image="../a.png")], r"data.json\[1\]: '../a.png' leads out"),
        ([record("<image>"), {"conversations": "hello"}], r"data.json\[1\]: field 'conversations' must be a list"),
        ([record("<image>"), {"conversations": [{"from": "human"}]}], r"data.json\[1\]: conversations\[0\] must be"),
    ],
)
def test_a_broken_record_is_named(instruct, records, message):
    with pytest.raises(DataError, match=message):
        instruct(records)[1]


def test_questions_are_joined_with_their_answers(shared_data, tmp_path):
    # Line 1 of qa90_questions.jsonl: question 0 about 000000441147.jpg, category conv, and its answer.
    root = shared_data / "llava_misc"
    Image.new("RGB", (4, 4)).save(tmp_path / "COCO_val2014_000000441147.jpg")
    dataset = DATASETS.build(
        dict(
            type="LLaVAQuestions",
            path=str(root / "qa90_questions.jsonl"),
            answers=str(root / "qa90_gpt4_answer.jsonl"),
            image_root=str(tmp_path),
            image_prefix="COCO_val2014_",
        )
    )
    assert len(dataset) == 90
    item = checked(dataset[0])
    answer = "The colors of the two suitcases in the image are black and brown with yellow details."
    assert item.conversations[0].text == "<image>\nWhat is the color of the two suitcases in the image?"
    assert item.conversations[1].text == answer
    assert item.truth["references"] == [answer]
    assert item.meta["category"] == "conv"
    assert item.meta["question_id"] == 0
    assert item.meta["image_id"] == "COCO_val2014_000000441147.jpg"


def test_questions_without_answers_end_with_the_question(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question_id": 1, "text": "What is red?"}))
    dataset = DATASETS.build(dict(type="LLaVAQuestions", path=str(path)))
    item = checked(dataset[0])
    assert [turn.text for turn in item.conversations] == ["What is red?"]
    assert hint_of(dataset, 0) == (12, 0)


def test_a_question_without_its_answer_is_named(tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": 1, "text": "What is red?"}))
    (tmp_path / "a.jsonl").write_text(json.dumps({"question_id": 2, "text": "Blood."}))
    options = dict(path=str(tmp_path / "q.jsonl"), answers=str(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match=r"q.jsonl:1: question_id 1 has no line in '.*a.jsonl'"):
        DATASETS.build(dict(type="LLaVAQuestions", **options))[0]


def messages(shared_data, name):
    root = shared_data / "xtuner_tests"
    path = root / "resource" / name
    return DATASETS.build(dict(type="XTunerMessages", path=str(path), image_root=str(root)))


def test_xtuners_messages_become_turns_with_their_images(shared_data):
    # Line 1 of the multi-image file: the dog (375x500), the two cats (640x480), then
    # "<IMG_CONTEXT>\n<IMG_CONTEXT>\n两张图片有啥相同之处？"; line 2 shows them the other way round.
    dataset = messages(shared_data, "mllm_sft_multi_image_example_data.jsonl")
    first, second = checked(dataset[0]), checked(dataset[1])
    assert first.conversations[0].text == "<image>\n<image>\n两张图片有啥相同之处？"
    assert [turn.role for turn in first.conversations] == ["human", "gpt", "human", "gpt"]
    assert [image.size for image in first.images] == [(375, 500), (640, 480)]
    assert [image.size for image in second.images] == [(640, 480), (375, 500)]


def test_all_of_xtuners_fine_tuning_samples_pass_the_item_check(shared_data):
    for kind in ("single", "multi"):
        dataset = messages(shared_data, f"mllm_sft_{kind}_image_example_data.jsonl")
        items = [checked(raw) for raw in dataset]
        assert items
        for index, item in enumerate(items):
            assert hint_of(dataset, index)[1] == len(item.images)


def test_pretraining_messages_are_refused_by_their_role(shared_data):
    dataset = messages(shared_data, "mllm_pretrain_image_example_data.jsonl")
    with pytest.raises(DataError, match=r"data.jsonl:1: messages\[0\]: role 'pretrain', expected user or assistant"):
        dataset[0]


def test_an_image_without_token_stands_before_what_follows_it(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    parts = [
        {"type": "text", "text": "Look: "},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "text", "text": "What is it?"},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": parts}]}))
    dataset = DATASETS.build(dict(type="XTunerMessages", path=str(path), image_root=str(tmp_path)))
    assert checked(dataset[0]).conversations[0].text == "Look: <image>\nWhat is it?"
