import json

import pytest
from dataset.examples_grounding import draw, write_visual_genome
from PIL import Image

from mllm.dataset.visual_genome import VisualGenomeRegions
from mllm.errors import DataError
from mllm.registry import DATASETS


@pytest.fixture
def small(tmp_path):
    arguments = write_visual_genome(tmp_path)

    def build(kind="VisualGenomeREC", **options):
        return DATASETS.build({"type": kind, **arguments, **options})

    return build


def test_a_real_region_becomes_an_item(shared_data, tmp_path):
    # Image 1 is 800 × 600 in VG_100K_2; its second region: x 194, y 372, width 182, height 109, "shade is along the
    # street " → right 194 + 182 = 376, bottom 372 + 109 = 481.
    (tmp_path / "VG_100K_2").mkdir()
    Image.new("RGB", (800, 600)).save(tmp_path / "VG_100K_2" / "1.jpg")
    folder = shared_data / "visual_genome_mini"
    files = {"regions": str(folder / "region_descriptions.json"), "image_data": str(folder / "image_data.json")}
    question = "Where is <expr> in <image>?"
    dataset = DATASETS.build({"type": "VisualGenomeREC", **files, "image_root": str(tmp_path), "questions": question})
    assert len(dataset) == 3028
    item = dataset[1]
    assert item["target"]["boxes"] == [(194, 372, 376, 481)]
    assert item["conversations"][0]["value"] == "Where is shade is along the street in <image>?"
    assert item["truth"] == {"boxes": [[194, 372, 376, 481]], "expression": "shade is along the street"}
    assert item["meta"] == {
        "source": "VisualGenomeREC",
        "image_id": 1,
        "region_id": 1383,
        "place": f"{files['regions']}[0]:regions[1]",
    }


def test_rows_cross_from_image_to_image(shared_data):
    # Image 1 has 262 regions; the first of image 2 is region 1387, x 465, y 193, 43 × 17.
    folder = shared_data / "visual_genome_mini"
    rows = VisualGenomeRegions(str(folder / "region_descriptions.json"), str(folder / "image_data.json"))
    assert rows[261]["image_id"] == 1
    assert (rows[262]["image_id"], rows[262]["region_id"]) == (2, 1387)
    assert rows[262]["bbox"] == (465, 193, 508, 210)
    assert rows[262]["img_path"] == "VG_100K_2/2.jpg"
    assert rows[-1]["image_id"] == 15
    assert [row["region_id"] for row in rows] == [rows[index]["region_id"] for index in range(len(rows))]


def test_the_folder_is_the_urls(small):
    dataset = small(clip=True)
    # image_data.json lists image 5 (VG_100K) before image 1 (VG_100K_2); image 2 has no region and no entry.
    assert [row["img_path"] for row in dataset.rows] == ["VG_100K_2/1.jpg"] * 2 + ["VG_100K/5.jpg"] * 2
    assert dataset[2]["meta"]["image_id"] == 5


def test_reg_asks_by_box_over_the_same_files(small):
    item = small("VisualGenomeREG", questions="<image> What is at <objs>?")[0]
    # x 20, y 10, 40 × 30 → [20, 10, 60, 40]; the phrase ends in two spaces.
    assert item["conversations"] == [
        {"from": "human", "value": "<image> What is at <boxes>?", "boxes_seq": [[0]]},
        {"from": "gpt", "value": "a red door"},
    ]
    assert item["target"]["boxes"] == [(20, 10, 60, 40)]
    assert item["truth"]["references"] == ["a red door"]


def test_phrases_are_filtered_by_their_words(small):
    # Words: "a red door" 3, "the roof of the old house" 6, "grass" 1, "two dogs" 2.
    kept = small("VisualGenomeREG", caption_min_words=2, caption_max_words=3, clip=True)
    assert [item["conversations"][1]["value"] for item in kept] == ["a red door", "two dogs"]


def test_clip_cuts_a_region_at_the_edge_of_the_image(small):
    # "grass" reaches from (190, 90) to (220, 110) in an image of 200 × 100.
    assert list(small(clip=True)[2]["target"]["boxes"][0]) == [190, 90, 200, 100]
    assert list(small()[2]["target"]["boxes"][0]) == [190, 90, 220, 110]


def test_clip_does_not_invent_a_box_for_a_region_outside(small, tmp_path):
    draw(tmp_path / "VG_100K" / "5.jpg", (100, 50))
    with pytest.raises(DataError, match=r"regions\[0\]: bbox \[190, 90, 220, 110\] lies outside the 100x50 image"):
        small(clip=True)[2]


def test_a_missing_image_is_named(small, tmp_path):
    (tmp_path / "VG_100K" / "5.jpg").unlink()
    with pytest.raises(DataError, match=r"region_descriptions.json\[2\]:regions\[0\]: .*VG_100K/5.jpg: no such file"):
        small()[2]


def test_an_image_without_data_is_named(small, tmp_path):
    (tmp_path / "image_data.json").write_text(json.dumps([{"image_id": 5, "url": "https://a/VG_100K/5.jpg"}]))
    with pytest.raises(DataError, match=r"region_descriptions.json\[0\]: image_id 1 is not in .*image_data.json"):
        small()[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": "20"}, "x, y, width and height must be numbers"),
        ({"phrase": None}, "field 'expression' must be text, got None"),
        ({"phrase": "  "}, "field 'expression' is empty"),
    ],
)
def test_a_wrong_region_is_named(small, tmp_path, change, message):
    path = tmp_path / "region_descriptions.json"
    images = json.loads(path.read_text())
    images[0]["regions"][1].update(change)
    path.write_text(json.dumps(images))
    with pytest.raises(DataError, match=r"region_descriptions.json\[0\]:regions\[1\]: " + message):
        small()[1]


def test_a_region_without_a_phrase_is_named(small, tmp_path):
    path = tmp_path / "region_descriptions.json"
    path.write_text(json.dumps([{"id": 1, "regions": [{"region_id": 1, "x": 1, "y": 1, "width": 2, "height": 2}]}]))
    with pytest.raises(DataError, match=r"json\[0\]:regions\[0\]: field 'phrase' is missing"):
        small()[0]


def test_a_url_without_a_folder_is_named(small, tmp_path):
    (tmp_path / "image_data.json").write_text(json.dumps([{"image_id": 1, "url": "1.jpg"}]))
    with pytest.raises(DataError, match=r"image_data.json\[0\]: field 'url' must end in FOLDER/NAME.jpg"):
        small()[0]
