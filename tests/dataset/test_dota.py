import pytest
from PIL import Image

from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import Item, check_item

QUESTION = "<image> Box every <category>."


def mini(shared_data, **options):
    root = shared_data / "rs4_mini"
    folders = dict(label_root=str(root / "DOTA_labelTxt"), image_root=str(root / "imagenes/DOTA/images"))
    return DATASETS.build(dict(type="DOTADetection", questions=QUESTION, **folders, **options))


def checked(raw):
    item = Item.from_dict(raw)
    check_item(item)
    return item


def test_an_item_asks_for_one_category_and_answers_with_all_its_hulls(shared_data):
    # P0706.txt: 531 ships, 5 harbors; P1888.txt: 14 small-vehicle, 50 large-vehicle. The harbors from left to right:
    # line 177 "118 566 130 554 542 975 531 986" → hull 118..542 x 554..986, …, line 538 "573 117 585 107 1003 530 993
    # 540".
    dataset = mini(shared_data)
    assert [(row["category"], row["count"]) for row in dataset.rows] == [
        ("ship", 531),
        ("harbor", 5),
        ("small-vehicle", 14),
        ("large-vehicle", 50),
    ]
    item = checked(dataset[1])
    assert item.conversations[0].text == "<image> Box every harbor."
    assert item.conversations[1].text == "<boxes>"
    assert item.conversations[1].boxes_seq == [[0, 1, 2, 3, 4]]
    assert item.target.boxes[0] == (118, 554, 542, 986)
    assert item.target.boxes[4] == (573, 107, 1003, 540)
    assert item.truth["boxes"][0] == [118, 554, 542, 986]
    assert item.truth["oriented_boxes"][0] == [118, 566, 130, 554, 542, 975, 531, 986]
    assert item.truth["difficult"] == [False] * 5
    assert item.meta["image_id"] == "P0706.png"
    assert item.meta["gsd"] == pytest.approx(0.255589285596)


def test_a_hyphen_in_a_category_is_a_space_in_the_question(shared_data):
    item = mini(shared_data)[2]
    assert item["conversations"][0]["value"] == "<image> Box every small vehicle."
    assert item["meta"]["category"] == "small-vehicle"


def test_difficult_objects_can_be_left_out(shared_data):
    # Six of the 531 ships are marked 1.
    assert sum(mini(shared_data)[0]["truth"]["difficult"]) == 6
    item = mini(shared_data, skip_difficult=True)[0]
    assert len(item["target"]["boxes"]) == 525
    assert not any(item["truth"]["difficult"])


def test_categories_are_chosen_and_long_answers_left_out_with_a_count(shared_data):
    assert [row["category"] for row in mini(shared_data, categories=["harbor", "ship"]).rows] == ["ship", "harbor"]
    dataset = mini(shared_data, max_boxes=50)
    assert [row["category"] for row in dataset.rows] == ["harbor", "small-vehicle", "large-vehicle"]
    assert dataset.dropped == {"ship": 1}
    with pytest.raises(ConfigError, match="no object of category 'harbour'; did you mean 'harbor'"):
        mini(shared_data, categories=["harbour"])


@pytest.fixture
def drawn(tmp_path):
    Image.new("RGB", (100, 50)).save(tmp_path / "P1.png")

    def make(text, **options):
        (tmp_path / "P1.txt").write_text(text)
        folders = dict(label_root=str(tmp_path), image_root=str(tmp_path))
        return DATASETS.build(dict(type="DOTADetection", questions=QUESTION, **folders, **options))

    return make


def test_without_header_the_first_line_is_an_object(drawn):
    item = drawn("10 10 20 5 30 10 20 15 ship 0\n")[0]
    assert item["target"]["boxes"] == [[10, 5, 30, 15]]
    assert "gsd" not in item["meta"]


def test_a_header_without_a_distance_is_passed_over(drawn):
    item = drawn("imagesource:GoogleEarth\r\ngsd:null\r\n10 10 20 5 30 10 20 15 ship 0\r\n\r\n")[0]
    assert item["target"]["boxes"] == [[10, 5, 30, 15]]
    assert "gsd" not in item["meta"]


def test_hulls_are_clipped_and_what_lies_outside_is_left_out_and_counted(drawn):
    # A ship over the right edge at 100, and one wholly beyond it.
    item = checked(drawn("90 10 110 10 110 20 90 20 ship 0\n120 10 130 10 130 20 120 20 ship 0\n")[0])
    assert item.target.boxes == [(90, 10, 100, 20)]
    assert item.truth["oriented_boxes"] == [[90, 10, 110, 10, 110, 20, 90, 20]]
    assert item.meta["left_out"] == 1


def test_nothing_inside_the_image_is_an_error(drawn):
    with pytest.raises(DataError, match=r"P1.txt: no ship lies inside the image 'P1.png' \(100, 50\)"):
        drawn("120 10 130 10 130 20 120 20 ship 0\n")[0]


@pytest.mark.parametrize(
    "line",
    ["1 2 3 4 5 6 7 ship 0", "1 2 3 4 5 6 7 x ship 0", "1 2 3 4 5 6 7 8 ship 0 0", "1 2 3 4 5 6 7 8 a b"],
)
def test_a_line_that_is_no_object_is_named(drawn, line):
    with pytest.raises(DataError, match=r"P1.txt:2: expected 'x1 y1 x2 y2 x3 y3 x4 y4 category difficult'"):
        drawn(f"gsd:0.5\n{line}\n")


def test_a_folder_without_labels_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no label files"):
        DATASETS.build(dict(type="DOTADetection", label_root=str(tmp_path), image_root=str(tmp_path)))
