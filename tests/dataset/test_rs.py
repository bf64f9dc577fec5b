"""Remote-sensing sources: RS-instructions / RS4 and the files they were made from."""

import json
from collections import Counter

import pytest
from PIL import Image

from mllm.dataset.rs_instructions import lr_question_type
from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import Item, check_item


@pytest.fixture
def rs4(shared_data):
    return shared_data / "rs4_mini"


def instructions(root, **options):
    return DATASETS.build(
        dict(type="RSInstructions", path=str(root / "dataset.json"), image_root=str(root / "imagenes"), **options)
    )


def checked(raw):
    item = Item.from_dict(raw)
    check_item(item)
    return item


def test_rs4_gives_each_record_as_one_conversation(rs4):
    # dataset.json: 140 NWPU + 132 RSICD + 50 LR + 2 DOTA records; the last, DOTA_P1888, has six questions.
    dataset = instructions(rs4)
    assert len(dataset) == 324
    item = checked(dataset[323])
    assert [turn.text for turn in item.conversations[:4]] == [
        "<image>\nhow many small vehicles are there in this picture?",
        "17",
        "how many large vehicles are there in this picture?",
        "50",
    ]
    assert len(item.conversations) == 12
    assert item.images[0].size == (712, 557)
    assert item.meta["category"] == "DOTA"
    assert item.meta["task"] == "vqa"
    assert item.meta["image_id"] == "DOTA/images/P1888.png"


def test_captions_are_all_references_of_the_image(rs4):
    item = instructions(rs4, turns="each")[1]
    # The second turn of the first record, about airplane_561.jpg.
    assert item["conversations"] == [
        {"from": "human", "value": "<image>\nWhat does this image represent?"},
        {"from": "gpt", "value": "Two aircraft were parked at the departure gates and one was on the runway ."},
    ]
    assert item["truth"]["references"] == [
        "Two planes parked next to boarding bridges and another passing plane beside .",
        "Two aircraft were parked at the departure gates and one was on the runway .",
        "Several planes of the same size parked neatly next to the buildings inside the airport .",
        "Three planes are parked on the open space next to the terminal .",
        "Three planes are in the parking lot next to the building .",
    ]
    assert item["meta"]["question_id"] == "NWPU_airplane_561#1"


def test_each_question_is_an_item_and_captions_can_be_asked_once(rs4):
    # 5 x 272 caption turns, 5,005 questions of LR, 12 + 6 of DOTA; once: 272 images instead of their 1,360 turns.
    each, once = instructions(rs4, turns="each"), instructions(rs4, turns="once")
    assert len(each) == 5 * 272 + 5005 + 18
    assert len(once) == 272 + 5005 + 18
    assert once[1]["meta"]["image_id"] != once[0]["meta"]["image_id"]


def test_a_question_carries_answer_and_type(rs4):
    # LR_0 begins: rural or urban → rural; a water area? → yes; number of forests → 4.
    dataset = instructions(rs4, turns="once", subsets=["LR"])
    items = [dataset[index] for index in range(3)]
    assert [item["truth"]["answers"] for item in items] == [["rural"], ["yes"], ["4"]]
    assert [item["meta"]["question_type"] for item in items] == ["rural_urban", "presence", "count"]
    assert items[1]["conversations"][0]["value"] == "<image>\nIs there a water area?"
    assert dataset.length_hint(1) == (len("Is there a water area?") + len("yes"), 1)


def test_the_words_of_lr_questions_tell_their_type_as_the_official_file_does(rs4):
    questions = json.loads((rs4 / "LR_reduced_questions.json").read_text())["questions"]
    wrong = [row for row in questions if lr_question_type(row["question"]) != row["type"]]
    assert wrong == []
    assert Counter(row["type"] for row in questions)["comp"] == 1993


@pytest.fixture
def stray(tmp_path):
    """One record of each sub-dataset that RS-instructions mixes, a stray one of ocr_vqa, and one without image."""
    images = ("NWPU/NWPU_images/a.png", "UAV/a.png", "UCM/a.png", "DOTA/images/a.png", "ocr_vqa/images/a.jpg", None)
    turns = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "yes"}]
    records = [
        {"id": str(i), **({"image": name} if name else {}), "conversations": turns} for i, name in enumerate(images)
    ]
    for name in images[:4]:
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (6, 6)).save(tmp_path / name)
    path = tmp_path / "instructions.json"
    path.write_text(json.dumps(records))
    return dict(type="RSInstructions", path=str(path), image_root=str(tmp_path))


def test_rs4_drops_other_sub_datasets_and_counts_them(stray):
    dataset = DATASETS.build(stray)
    assert [item["meta"]["category"] for item in dataset] == ["NWPU", "DOTA"]
    assert dataset.dropped == {"UAV": 1, "UCM": 1, "ocr_vqa": 1, "no image": 1}
    assert len(DATASETS.build({**stray, "subsets": ["UAV", "UCM"]})) == 2


def test_unknown_and_absent_sub_datasets_are_errors(stray):
    with pytest.raises(ConfigError, match="no sub-dataset 'RSCID'; did you mean 'RSICD'"):
        DATASETS.build({**stray, "subsets": ["RSCID"]})
    with pytest.raises(DataError, match=r"no record of LR; the file has NWPU \(1\), UAV \(1\)"):
        DATASETS.build({**stray, "subsets": ["LR"]})
    with pytest.raises(ConfigError, match="turns='every'"):
        DATASETS.build({**stray, "turns": "every"})


def test_a_conversation_out_of_turn_is_named(tmp_path, stray):
    turns = [{"from": "gpt", "value": "yes"}, {"from": "human", "value": "Is it?"}]
    (tmp_path / "bad.json").write_text(json.dumps([{"id": "1", "image": "DOTA/images/a.png", "conversations": turns}]))
    dataset = DATASETS.build({**stray, "path": str(tmp_path / "bad.json"), "turns": "each"})
    with pytest.raises(DataError, match=r"bad.json\[0\]: conversations\[0\]: expected a human turn"):
        dataset[0]


def nwpu(rs4, **options):
    images = rs4 / "imagenes" / "NWPU" / "NWPU_images"
    return DATASETS.build(
        dict(type="NWPUCaptions", path=str(rs4 / "dataset_nwpu.json"), image_root=str(images), **options)
    )


def test_nwpu_captions_are_five_an_image(rs4):
    # dataset_nwpu.json: 70 images of airplane and 70 of baseball_diamond, 80 val and 60 test; 561 is the first.
    dataset = nwpu(rs4, split="val")
    assert len(dataset) == 80
    assert len(nwpu(rs4, split="val+test")) == 140
    item = checked(dataset[0])
    assert item.meta["category"] == "airplane"
    assert item.meta["image_id"] == "airplane/airplane_561.jpg"
    assert item.images[0].size == (256, 256)
    assert item.truth["references"][4] == "Three planes are in the parking lot next to the building ."
    assert item.conversations[1].text in item.truth["references"]


def test_another_epoch_trains_on_another_caption_of_the_image(rs4):
    dataset = nwpu(rs4, split="val")
    answers = {dataset.item(0, epoch)["conversations"][1]["value"] for epoch in range(20)}
    assert len(answers) > 1
    assert answers <= set(dataset[0]["truth"]["references"])


def test_one_item_a_caption_gives_each_caption_once(rs4):
    dataset = nwpu(rs4, split="val", per="caption")
    assert len(dataset) == 400
    answers = [dataset[index]["conversations"][1]["value"] for index in range(5)]
    assert answers == dataset[0]["truth"]["references"]


def test_rsicd_reads_karpathys_layout(rs4):
    # dataset_rsicd.json: 60 train, 24 val, 48 test; the first sentence keeps its spelling "buildiings surroudned".
    options = dict(type="RSICD", path=str(rs4 / "dataset_rsicd.json"), image_root=str(rs4 / "imagenes/RSICD/images"))
    sizes = [len(DATASETS.build({**options, "split": split})) for split in ("train", "val", "test")]
    assert sizes == [60, 24, 48]
    item = checked(DATASETS.build(options)[0])
    assert item.meta["image_id"] == "00001.jpg"
    assert item.truth["references"][0] == "a football field with several buildiings surroudned ."
    assert len(item.truth["references"]) == 5
    last = DATASETS.build({**options, "split": "test"})[47]
    assert last["meta"]["image_id"] == "stadium_54.jpg"
    assert last["meta"]["category"] == "stadium"
    with pytest.raises(ConfigError, match="no image of split 'tets'; did you mean 'test'"):
        DATASETS.build({**options, "split": "tets"})


def test_an_image_without_captions_is_named(tmp_path):
    path = tmp_path / "nwpu.json"
    path.write_text(json.dumps({"lake": [{"filename": "l.jpg", "split": "train", "raw": " "}]}))
    with pytest.raises(DataError, match=r"nwpu.json:lake\[0\]: no caption in raw"):
        DATASETS.build(dict(type="NWPUCaptions", path=str(path), image_root=str(tmp_path)))


def rsvqa(rs4, **options):
    names = dict(files="LR_reduced_{part}.json", image_pattern="{image_id}.png")
    return DATASETS.build(
        dict(type="RSVQALR", root=str(rs4), image_root=str(rs4 / "imagenes/LR/Train"), **names, **options)
    )


def test_rsvqa_joins_questions_with_answers_and_images(rs4):
    # 50 images, 5,005 questions. Question 2 of image 0: "What is the number of forests in the image?", count, "4".
    dataset = rsvqa(rs4)
    assert len(dataset) == 5005
    item = checked(dataset[2])
    assert item.conversations[0].text == "<image>\nWhat is the number of forests in the image?"
    assert item.conversations[1].text == "4"
    assert item.truth["answers"] == ["4"]
    expected = {"image_id": "0.png", "question_id": 2, "category": "count"}
    assert {key: item.meta[key] for key in expected} == expected
    # The types of the file: 1,471 count and 50 rural_urban.
    assert len(rsvqa(rs4, question_types=["count", "rural_urban"])) == 1521
    with pytest.raises(ConfigError, match="no question type 'cuont'"):
        rsvqa(rs4, question_types=["cuont"])


@pytest.fixture
def lr(tmp_path):
    """Two questions of the split, one of another split, one whose first answer belongs to another split."""
    images = [{"id": 0, "active": True}, {"id": 1, "active": False}]
    questions = [
        {"id": 0, "img_id": 0, "type": "presence", "question": "Is there a road?", "answers_ids": [0], "active": True},
        {"id": 1, "active": False},
        {"id": 2, "img_id": 0, "type": "count", "question": "How many roads?", "answers_ids": [1, 2], "active": True},
    ]
    answers = [
        {"id": 0, "answer": "yes", "active": True},
        {"id": 1, "active": False},
        {"id": 2, "answer": 7, "active": True},
    ]
    Image.new("RGB", (8, 8)).save(tmp_path / "0.tif")

    def make(**changed):
        parts = {"images": images, "questions": questions, "answers": answers, **changed}
        for part, rows in parts.items():
            (tmp_path / f"LR_split_val_{part}.json").write_text(json.dumps({part: rows}))
        return DATASETS.build(dict(type="RSVQALR", root=str(tmp_path), image_root=str(tmp_path), split="val"))

    make.questions = questions
    return make


def test_rsvqa_skips_what_is_not_active(lr):
    dataset = lr()
    assert [item["truth"]["answers"] for item in dataset] == [["yes"], ["7"]]
    assert [item["meta"]["question_id"] for item in dataset] == [0, 2]
    assert dataset[0]["image"].size == (8, 8)


def test_rsvqa_names_what_does_not_join(lr):
    with pytest.raises(
        DataError, match=r"questions.json:questions\[0\]: img_id 0 is no active image of '.*images.json'"
    ):
        lr(images=[{"id": 0, "active": False}])
    with pytest.raises(DataError, match=r"questions\[2\]: answers_ids \[1, 2\]: none is active"):
        lr(answers=[{"id": 0, "answer": "yes", "active": True}])
    with pytest.raises(DataError, match=r"answers\[0\]: field 'active' is missing"):
        lr(answers=[{"id": 0, "answer": "yes"}])


def rsivqa(path, root, **options):
    return DATASETS.build(dict(type="RSIVQA", path=str(path), image_root=str(root), **options))


def test_rsivqa_reads_the_authors_lines(rs4):
    # Line 13: "P0706: how many ships are there in this picture?548"; line 30 the last: "… contain ship?no".
    dataset = rsivqa(rs4 / "RSIVQA_dota_val_sample.txt", rs4 / "imagenes/DOTA/images")
    assert len(dataset) == 30
    item = checked(dataset[12])
    assert item.conversations[0].text == "<image>\nhow many ships are there in this picture?"
    assert item.truth["answers"] == ["548"]
    assert item.images[0].size == (1111, 1182)
    expected = {"image_id": "P0706.png", "question_id": 13, "category": "count"}
    assert {key: item.meta[key] for key in expected} == expected
    assert dataset[29]["meta"]["category"] == "presence"


def test_rsivqa_splits_at_the_first_colon_and_the_last_question_mark(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.tif")
    (tmp_path / "q.txt").write_text("\n1.tif:time 12:30? is it noon?medium residential\n\n")
    dataset = rsivqa(tmp_path / "q.txt", tmp_path)
    assert len(dataset) == 1
    assert dataset[0]["conversations"] == [
        {"from": "human", "value": "<image>\ntime 12:30? is it noon?"},
        {"from": "gpt", "value": "medium residential"},
    ]
    assert dataset[0]["meta"]["image_id"] == "1.tif"
    assert dataset[0]["meta"]["category"] == "other"


@pytest.mark.parametrize("line", ["no colon?yes", "P1: no question mark", "P1: no answer?", ": no image?yes"])
def test_rsivqa_names_a_line_it_cannot_read(tmp_path, line):
    (tmp_path / "q.txt").write_text(f"P1: good?yes\n{line}\n")
    with pytest.raises(DataError, match=r"q.txt:2: expected 'image: question\?answer'"):
        rsivqa(tmp_path / "q.txt", tmp_path)


def test_a_missing_image_is_named_with_its_line(tmp_path):
    (tmp_path / "q.txt").write_text("P1: good?yes\n")
    with pytest.raises(DataError, match=r"q.txt:1: .*P1.png: no such file"):
        rsivqa(tmp_path / "q.txt", tmp_path)[0]
