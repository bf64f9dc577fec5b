import json
import shutil

import pytest
from dataset.examples_grounding import write_entities, write_flattened

from mllm.dataset.flickr30k_entities import parse_sentence, read_boxes
from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import Item, check_item

# The boxes of examples_grounding.ENTITIES_XML, counted from 0: (11, 21, 51, 61) - 1 and (101, 1, 200, 100) - 1.
FIRST, SECOND = [10, 20, 50, 60], [100, 0, 199, 99]
ASK = "<image> Describe <objs>."


@pytest.fixture
def entities(tmp_path):
    arguments = write_entities(tmp_path)

    def build(kind="Flickr30kEntities", **options):
        return DATASETS.build({"type": kind, **arguments, **options})

    return build


@pytest.fixture
def lines(tmp_path):
    arguments = write_flattened(tmp_path)

    def build(kind="Flickr30kJsonl", **options):
        return DATASETS.build({"type": kind, **arguments, **options})

    return build


def test_a_real_folder_in_the_authors_layout(shared_data):
    dataset = DATASETS.build(
        {
            "type": "Flickr30kEntities",
            "root": str(shared_data / "flickr30k_format_from_coco"),
            "image_root": str(shared_data / "coco_tiny/val2017"),
            "split": "val+test",
        }
    )
    assert len(dataset) == (25 + 25) * 5
    # test.txt begins with 000000017627, the 26th id of val + test. Its second sentence is
    # "[/EN#176272/vehicles A green car] has parked on the curb in a parking lot ."; chain 176272 shares the XML's
    # second object (31, 234, 148, 328) with chain 176271.
    item = dataset[25 * 5 + 1]
    assert item["conversations"][1] == {
        "from": "gpt",
        "value": "A green car <boxes> has parked on the curb in a parking lot .",
        "boxes_seq": [[0]],
    }
    assert item["target"]["boxes"] == [(30, 233, 147, 327)]
    assert item["meta"]["image_id"] == "000000017627"
    # Its first sentence names chain 176271, which has all eleven objects, the shared one among them.
    several = dataset[25 * 5]
    assert several["conversations"][1]["value"] == "Several cars <boxes> are parked in front of a building ."
    assert several["conversations"][1]["boxes_seq"] == [list(range(11))]
    assert several["target"]["boxes"][:2] == [(264, 235, 375, 302), (30, 233, 147, 327)]
    assert several["truth"]["references"][1] == "A green car has parked on the curb in a parking lot ."


def test_every_item_of_the_real_folder_passes_the_item_check(shared_data):
    for split, images in (("train", "train2017"), ("val", "val2017"), ("test", "val2017")):
        root, image_root = shared_data / "flickr30k_format_from_coco", shared_data / "coco_tiny" / images
        options = {"root": str(root), "image_root": str(image_root), "split": split, "per": "image"}
        dataset = DATASETS.build({"type": "Flickr30kEntities", **options})
        for index in range(len(dataset)):
            item = Item.from_dict(dataset[index])
            check_item(item)
            assert len(item.truth["references"]) == 5


def test_boxes_are_counted_from_one_and_shared_between_chains(entities):
    item = entities()[0]
    # Chain 7 has both boxes, chain 8 the second, chain 10 is a scene.
    assert item["conversations"][1] == {
        "from": "gpt",
        "value": "Two men <boxes> sit beside a man <boxes> in a park .",
        "boxes_seq": [[0, 1], [1]],
    }
    assert [list(box) for box in item["target"]["boxes"]] == [FIRST, SECOND]
    assert item["truth"]["boxes"] == [FIRST, SECOND]
    assert item["truth"]["phrases"] == [
        {"text": "Two men", "boxes": [FIRST, SECOND], "chain": "7", "types": ["people"]},
        {"text": "a man", "boxes": [SECOND], "chain": "8", "types": ["people", "clothing"]},
    ]
    assert item["truth"]["references"][0] == "Two men sit beside a man in a park ."


def test_notvisual_nobndbox_and_plain_sentences_bear_no_box(entities):
    dataset = entities()
    answer = dataset[1]["conversations"][1]
    assert answer["value"] == "There are people <boxes> , the wind and more of them <boxes> ."
    assert answer["boxes_seq"] == [[0, 1], [0, 1]]
    assert dataset[2]["conversations"][1] == {"from": "gpt", "value": "It is a fine day .", "boxes_seq": []}
    assert dataset[2]["target"]["boxes"] == []
    assert dataset[3]["conversations"][1]["value"] == "Wind blows ."


def test_only_boxes_of_the_sentence_are_its_targets(entities):
    assert [list(box) for box in entities()[4]["target"]["boxes"]] == [SECOND]


def test_unrelated_sentences_can_be_left_out(entities):
    # UNRELATED_CAPTIONS names sentence 3, counted from 1, of image 1: "It is a fine day ."
    kept = entities(drop_unrelated=True)
    assert len(kept) == 4
    assert all("fine day" not in text for index in range(4) for text in kept[index]["truth"]["references"])
    assert [kept[index]["meta"]["sentence"] for index in range(4)] == [0, 1, 3, 4]


def test_an_item_an_image_draws_its_sentence_by_epoch(entities):
    dataset = entities(per="image")
    assert len(dataset) == 1
    drawn = [dataset.item(0, epoch)["meta"]["sentence"] for epoch in range(40)]
    assert set(drawn) == {0, 1, 2, 3, 4}
    assert drawn == [dataset.item(0, epoch)["meta"]["sentence"] for epoch in range(40)]


def test_no_annotation_is_read_before_it_is_asked_for(entities, tmp_path):
    shutil.rmtree(tmp_path / "Annotations")
    shutil.rmtree(tmp_path / "Sentences")
    dataset = entities()
    assert len(dataset) == 5
    with pytest.raises(DataError, match=r"Annotations/1.xml: no such file"):
        dataset[0]


def test_the_real_sentences_parse_and_their_missing_boxes_are_named(shared_data, tmp_path):
    root = shared_data / "flickr30k_entities_mini"
    seen = 0
    for path in sorted((root / "Sentences").iterdir()):
        for number, line in enumerate(filter(str.strip, path.read_text().splitlines())):
            sentence = parse_sentence(line, f"{path}:{number}", [], {})
            assert "[" not in sentence.text
            assert "]" not in sentence.text
            assert sentence.grounded == ()
            seen += 1
    assert seen == 8 * 5
    options = {"root": str(root), "image_root": str(root / "flickr30k-images")}
    dataset = DATASETS.build({"type": "Flickr30kEntities", **options})
    # train.txt has the official 29,783 images.
    assert len(dataset) == 29783 * 5
    with pytest.raises(DataError, match=r"Annotations/\d+.xml: no such file"):
        dataset[0]


def test_real_sentences_with_annotations_by_hand(shared_data, tmp_path):
    root = shared_data / "flickr30k_entities_mini"
    shutil.copytree(root / "Sentences", tmp_path / "Sentences")
    (tmp_path / "train.txt").write_text("205842\n")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "205842.xml").write_text(
        "<annotation><object><name>26283</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>400</xmax><ymax>300</ymax>"
        "</bndbox></object><object><name>0</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax>"
        "</bndbox></object></annotation>"
    )
    options = {"root": str(tmp_path), "image_root": str(root / "flickr30k-images")}
    dataset = DATASETS.build({"type": "Flickr30kEntities", **options})
    # Line 3: "[/EN#26283/people A girl] in [/EN#26287/clothing a pink outfit] pushing [/EN#26284/other a blue stroller]
    # with [/EN#26285/people a boy] sitting in [/EN#0/notvisual it] ."; the image is 400 × 300; chain 0 never counts.
    item = dataset[2]
    text = "A girl <boxes> in a pink outfit pushing a blue stroller with a boy sitting in it ."
    assert item["conversations"][1] == {"from": "gpt", "value": text, "boxes_seq": [[0]]}
    assert item["target"]["boxes"] == [(0, 0, 399, 299)]
    check_item(Item.from_dict(item))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_a_document_type_is_refused(tmp_path, encoding):
    path = tmp_path / "1.xml"
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"1.xml: the XML declares a document type \(a\)"):
        read_boxes(str(path))


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation><object>", "broken XML: no element found: line 1"),
        ("<a><object><name>3</name></object></a>", r"object\[0\]: expected bndbox, nobndbox or scene"),
        (
            "<a><object><name>3</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>x</xmax></bndbox></object></a>",
            r"object\[0\]: bndbox/xmax must be a number, got 'x'",
        ),
    ],
)
def test_broken_annotations_are_named(entities, tmp_path, xml, message):
    (tmp_path / "Annotations" / "1.xml").write_text(xml)
    with pytest.raises(DataError, match=rf"Sentences/1.txt:1: .*Annotations/1.xml:\s?{message}"):
        entities()[0]


def test_a_broken_sentence_is_named(entities, tmp_path):
    path = tmp_path / "Sentences" / "1.txt"
    path.write_text(path.read_text().replace("[/EN#8/people/clothing a man]", "[/EN#8/people/clothing a man"))
    with pytest.raises(DataError, match=r"Sentences/1.txt:1: a phrase is not \[/EN#<chain>/<type> words\]"):
        entities()[0]


def test_a_file_without_five_sentences_is_named(entities, tmp_path):
    (tmp_path / "Sentences" / "1.txt").write_text("One .\nTwo .\n")
    with pytest.raises(DataError, match=r"Sentences/1.txt: 2 sentences, expected 5"):
        entities()[0]


def test_a_missing_split_is_named(entities):
    with pytest.raises(DataError, match=r"dev.txt: no such file"):
        entities(split="dev")


def test_flattened_marks_become_placeholders(lines):
    item = lines()[0]
    assert item["conversations"][1] == {
        "from": "gpt",
        "value": "Two young guys <boxes> with shaggy hair near a man <boxes> .",
        "boxes_seq": [[0, 1], [1]],
    }
    assert item["target"]["boxes"] == [(10, 20, 50, 60), (100, 0, 199, 99)]
    assert item["truth"]["references"] == ["Two young guys with shaggy hair near a man ."]
    assert item["meta"]["image_id"] == 1
    assert lines()[1]["conversations"][1]["value"] == "It is a fine day ."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes_seq": [[0]]}, "2 <ph_st>…<ph_ed> in 'sentence' but 1 lists in 'boxes_seq'"),
        ({"boxes_seq": [[0], [2]]}, r"boxes_seq\[1\] holds 2 but there are 2 boxes"),
        ({"sentence": "<ph_st>Two<ph_ed> and one<ph_ed> ."}, "1 <ph_st>…<ph_ed> in 'sentence' but 2 lists"),
        ({"sentence": 3}, "field 'sentence' must be text"),
    ],
)
def test_a_wrong_flattened_line_is_named(lines, tmp_path, change, message):
    path = tmp_path / "flickr30k.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**row, **change}) + "\n")
    with pytest.raises(DataError, match=r"flickr30k.jsonl:1: .*" + message):
        lines()[0]


def test_the_reverse_answers_in_three_styles(entities):
    answers = {
        style: entities("Flickr30kReverse", answer=style, questions=ASK)[0]["conversations"][1]
        for style in ("caption", "queried", "all")
    }
    assert answers["caption"] == {
        "from": "gpt",
        "value": "Two men sit beside a man in a park .",
        "boxes_seq": [],
    }
    # Two phrases have boxes and five may be asked about, so that both are.
    assert answers["queried"] == answers["all"]
    assert answers["all"]["value"] == "Two men <boxes> sit beside a man <boxes> in a park ."
    assert answers["all"]["boxes_seq"] == [[0, 1], [1]]


def test_the_queried_phrases_alone_bear_boxes_in_the_answer(lines):
    dataset = lines("Flickr30kReverse", answer="queried", box_max_num=1, questions=ASK)
    expected = {
        "Two young guys <boxes> with shaggy hair near a man .": ([[0, 1]], [FIRST, SECOND]),
        "Two young guys with shaggy hair near a man <boxes> .": ([[1]], [SECOND]),
    }
    seen = set()
    for epoch in range(20):
        item = dataset.item(0, epoch)
        question, answer = item["conversations"]
        sequences, boxes = expected[answer["value"]]
        assert answer["boxes_seq"] == question["boxes_seq"] == sequences
        assert item["truth"]["boxes"] == item["truth"]["phrases"][0]["boxes"] == boxes
        seen.add(answer["value"])
    assert seen == set(expected)


def test_the_question_holds_one_placeholder_or_one_a_phrase(lines):
    one = lines("Flickr30kReverse", questions=ASK)[0]["conversations"][0]
    several = lines("Flickr30kReverse", questions=ASK, one_placeholder=False)[0]["conversations"][0]
    # Box 1 belongs to both phrases: once in the one placeholder.
    assert one == {"from": "human", "value": "<image> Describe <boxes>.", "boxes_seq": [[0, 1]]}
    assert several["value"] == "<image> Describe <boxes>, <boxes>."
    assert several["boxes_seq"] == [[0, 1], [1]]


def test_a_sentence_without_boxes_is_never_asked_about(entities, lines):
    # Lines 1 and 3 of the flattened file have boxes, line 2 has none.
    assert [row["sentence"][-2:] for row in lines("Flickr30kReverse").rows] == [" .", " ."]
    assert len(lines("Flickr30kReverse")) == 2
    # Of the image's sentences 0, 1 and 4 have boxes; 2 and 3 give way to 4.
    dataset = entities("Flickr30kReverse")
    assert [dataset[index]["meta"]["sentence"] for index in range(5)] == [0, 1, 4, 4, 4]


def test_an_image_without_any_box_is_an_error(entities, tmp_path):
    (tmp_path / "Annotations" / "1.xml").write_text("<annotation></annotation>")
    with pytest.raises(DataError, match=r"Sentences/1.txt:1: no sentence of image 1 has a phrase with a box"):
        entities("Flickr30kReverse")[0]


def test_the_reverse_of_the_real_folder_passes_the_item_check(shared_data):
    root = shared_data / "flickr30k_format_from_coco"
    options = {"root": str(root), "image_root": str(shared_data / "coco_tiny/train2017"), "split": "train"}
    style = {"box_max_num": 2, "one_placeholder": False, "answer": "queried"}
    dataset = DATASETS.build({"type": "Flickr30kReverse", **options, **style})
    forward = DATASETS.build({"type": "Flickr30kEntities", **options})
    checked = 0
    for index in range(0, len(dataset), 5):
        if not any(forward[index + number]["target"]["boxes"] for number in range(5)):
            with pytest.raises(DataError, match="no sentence of image"):
                dataset[index]
            continue
        item = Item.from_dict(dataset[index])
        check_item(item)
        assert 1 <= len(item.conversations[0].boxes_seq) <= 2
        assert item.conversations[1].boxes_seq == item.conversations[0].boxes_seq
        checked += 1
    assert checked > 30


def test_wrong_options_of_the_reverse_are_errors(entities, lines):
    with pytest.raises(ConfigError, match="Flickr30kReverse: answer='boxes'; known: all, caption, queried"):
        entities("Flickr30kReverse", answer="boxes")
    with pytest.raises(ConfigError, match="give one of them"):
        entities("Flickr30kReverse", path="x.jsonl")
    with pytest.raises(ConfigError, match="box_max_num=0; expected at least 1"):
        lines("Flickr30kReverse", box_max_num=0)
