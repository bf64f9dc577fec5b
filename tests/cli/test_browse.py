"""``mllm browse``: what the page shows is what the model gets, read back from ids, labels and text."""

import base64
import io
import json
import random
from html.parser import HTMLParser

import pytest
from PIL import Image, ImageDraw
from tiny import CONVERSATION, EVALUATORS, MODEL_ARGS, REC, processor

from mllm.cli.main import main
from mllm.grounding.transforms import View
from mllm.models.llava import LLaVA

NASTY = '</div><script>alert("x")</script> see https://example.org & "100 %" <b>'
# The 100 x 50 picture lies on a 100 x 100 canvas, 25 below its top, so the box (10, 5, 50, 45) has the fractions
# 0.1, (5 + 25) / 100, 0.5, (45 + 25) / 100, and the point (90, 25) has 0.9, 0.5.
BOX_TEXT, POINT_TEXT = "[0.100,0.300,0.500,0.700]", "[0.900,0.500]"


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and for each row its texts by element."""

    def __init__(self, markup):
        super().__init__()
        self.elements, self.rows, self.stack = [], [], []
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "article":
            self.rows.append({"attributes": attributes, "mark": "", "text": "", "expected": "", "at": [], "shapes": []})
        if tag in ("rect", "circle") and self.rows and attributes["class"] == "line":
            self.rows[-1]["shapes"].append((self.stack[-1][1]["class"], attributes))
        if tag not in ("meta", "image", "rect", "circle", "br"):
            self.stack.append((tag, attributes))
            if attributes.get("class") == "at":
                self.rows[-1]["at"].append((attributes["data-n"], ""))

    def handle_endtag(self, tag):
        if tag not in ("image", "rect", "circle"):
            opened, _ = self.stack.pop()
            assert opened == tag, f"<{opened}> is closed by </{tag}>"

    def handle_data(self, data):
        if self.rows:
            classes = [attributes.get("class") for _, attributes in self.stack]
            self.rows[-1]["text"] += data
            self.rows[-1]["mark"] += data if "mark" in [tag for tag, _ in self.stack] else ""
            self.rows[-1]["expected"] += data if "expected" in classes else ""
            if "at" in classes:
                number, text = self.rows[-1]["at"].pop()
                self.rows[-1]["at"].append((number, text + data))

    def of(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


def _item(question, answer, *, image="wide.png", **turns):
    target = {"boxes": [[10, 5, 50, 45]], "points": [[90, 25]]}
    asked, said = turns.get("asked", {}), turns.get("said", {})
    conversations = [{"from": "human", "value": question, **asked}, {"from": "gpt", "value": answer, **said}]
    return {"image": image, "target": target, "conversations": conversations}


ROWS = [
    _item("<image> Find it .", "Box <boxes> , middle <points> .", said={"boxes_seq": [[0]], "points_seq": [[0]]}),
    _item("What is at <boxes> ?", NASTY, asked={"boxes_seq": [[0]]}),
    _item("<image> Gone ?", "Yes .", image="absent.png"),
    _item("<image> Outside ?", "Yes .") | {"target": {"boxes": [[90, 10, 400, 40]]}},
    _item("<image> Long ?", "word " * 600),
]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with a config on five hand-made rows and on drawn expressions; building a model is an error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LLaVA, "build_model", lambda *_: pytest.fail("weights were asked for"))
    picture = Image.new("RGB", (100, 50), "white")
    ImageDraw.Draw(picture).rectangle((10, 5, 49, 44), fill=(200, 30, 90))
    picture.save("wide.png")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    made = {"type": "ItemJsonl", "path": "rows.jsonl", "image_root": str(tmp_path)}
    data_args = {
        "train": {"type": "ConcatDataset", "datasets": [made, REC, {**REC, "split": "other"}]},
        "test": {"dataset": made, "evaluators": EVALUATORS},
        "multitest": {"blank": {"dataset": {"type": "BlankImages", "dataset": REC}, "evaluators": EVALUATORS}},
    }
    (tmp_path / "c.py").write_text(
        f"model_args = {MODEL_ARGS!r}\nconversation = {CONVERSATION!r}\ndata_args = {data_args!r}\n"
    )
    return tmp_path


def browse(*argv):
    assert main(["browse", "c.py", *argv]) == 0
    with open("browse.html", encoding="utf-8") as stream:
        return Page(stream.read())


def test_the_marked_text_is_what_is_trained(desk):
    rows = browse("--start", "0", "--count", "2").rows
    assert [row["mark"] for row in rows] == [f" Box {BOX_TEXT} , middle {POINT_TEXT} .</s>", f" {NASTY}</s>"]
    prompt = "USER: image · 4 tokens Find it . ASSISTANT: Box"
    assert prompt in rows[0]["text"]
    assert "A chat between a curious user" in rows[0]["text"]
    assert "answers to the user's questions. USER: image · 4 tokens\nWhat is at" in rows[1]["text"]


def test_token_counts_are_those_of_the_sample(desk):
    # The tokenizer gives one token a byte here or fewer: count with the processor itself, on text written by hand.
    page = browse("--start", "0", "--count", "1")
    tokenizer = processor().tokenizer
    answer = tokenizer(f" Box {BOX_TEXT} , middle {POINT_TEXT} .", add_special_tokens=False)["input_ids"]
    assert f"{len(answer) + 1} trained, 4 image" in page.rows[0]["text"]


def test_places_are_those_of_the_text_in_pixels_of_the_canvas(desk):
    # On the 28 pixel canvas: 0.1 * 28 = 2.8, 0.3 * 28 = 8.4, 0.4 * 28 = 11.2, 0.9 * 28 = 25.2, 0.5 * 28 = 14.
    answered, asked = browse("--start", "0", "--count", "2").rows
    assert answered["at"] == [("1", BOX_TEXT), ("2", POINT_TEXT)]
    (box_class, box), (point_class, point) = answered["shapes"]
    assert [box[key] for key in ("x", "y", "width", "height")] == ["2.80", "8.40", "11.20", "11.20"]
    assert [point[key] for key in ("cx", "cy")] == ["25.20", "14.00"]
    assert box_class == point_class == "place answer"
    assert [kind for kind, _ in asked["shapes"]] == ["place"]
    assert asked["at"] == [("1", BOX_TEXT)]


def test_the_image_is_the_models_to_the_pixel(desk):
    url = browse("--start", "0", "--count", "1").of("image")[0]["href"]
    shown = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    view = View.of(Image.open("wide.png"))
    for transform in processor().transforms:
        view = transform(view, random.Random(0))
    assert shown.size == (28, 28)
    assert shown.tobytes() == view.image.tobytes()


def test_rows_that_fail_are_shown_and_stop_nothing(desk, capsys):
    page = browse("--start", "1", "--count", "5")
    problems = [json.loads(row["attributes"]["data-problems"]) for row in page.rows]
    assert problems == [["image put in front"], ["fails"], ["fails"], ["truncated"], []]
    gone, outside = page.rows[1:3]
    assert "absent.png" in gone["text"]
    assert "outside the 100x50 image" in outside["text"]
    assert "human: <image> Outside ?" in outside["text"]
    assert "rows.jsonl" in outside["text"]
    assert outside["mark"] == gone["mark"] == ""
    assert "5 of 21 samples of train, 4 with a problem" in capsys.readouterr().out


def test_boxes_that_are_not_the_items_are_a_problem(desk):
    (desk / "rows.jsonl").write_text(json.dumps(_item("<image> Find it .", "It is at [0.1,0.2,0.3,0.4] .")) + "\n")
    (row,) = browse("--start", "0", "--count", "1").rows
    assert json.loads(row["attributes"]["data-problems"]) == ["boxes in the text are not those of the item"]
    assert "1 boxes and points in the text, 0 in the item" in row["text"]


def test_nothing_is_loaded_and_all_text_is_escaped(desk):
    page = browse()
    assert all(url.startswith("data:image/") for one in page.of("image") for url in [one["href"]])
    assert not [name for name, attributes in page.elements if name in ("link", "img", "iframe") or "src" in attributes]
    assert len(page.of("script")) == 1
    markup = (desk / "browse.html").read_text()
    assert "url(" not in markup
    assert "@import" not in markup
    assert "<script>alert" not in markup
    assert markup.count("://") == 1  # the one in the text


def test_filters_list_every_source_and_problem(desk):
    page = browse("--start", "0", "--count", "3")
    values = [one["value"] for one in page.of("option")]
    assert values == ["", "0", "1", "2", "", "any", "none", "image put in front", "fails"]
    markup = (desk / "browse.html").read_text()
    assert ">ItemJsonl<" in markup
    assert ">DrawnREC #1<" in markup
    assert ">DrawnREC #2<" in markup


def test_without_a_start_every_source_is_shown(desk):
    sources = [row["attributes"]["data-source"] for row in browse("--count", "6").rows]
    assert sources == ["0", "0", "1", "1", "2", "2"]
    assert len(browse("--count", "100").rows) == 21


def test_an_evaluation_set_shows_prompts_with_the_expected_answer_apart(desk):
    rows = browse("--set", "test", "--start", "0", "--count", "1").rows
    assert rows[0]["mark"] == ""
    assert rows[0]["expected"] == f"Box {BOX_TEXT} , middle {POINT_TEXT} ."
    assert "ASSISTANT:Box" in rows[0]["text"]
    assert [kind for kind, _ in rows[0]["shapes"]] == ["place answer", "place answer"]
    assert "0 trained" in rows[0]["text"]
    assert len(browse("--set", "blank", "--count", "2").rows) == 2


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--set", "tests"], 1, "--set 'tests': data_args has no such set; did you mean 'test'? known: blank, test"),
        (["--set", "validation"], 1, "--set 'validation': data_args has no such set"),
        (["--start", "21"], 1, "--start 21: train has 21 samples, numbered from 0"),
        (["--count", "0"], 2, "--count 0"),
        (["--count", "many"], 2, "invalid int value: 'many'"),
        (["--count", "1", "--out", "."], 1, "--out '.' cannot be written"),
        (["--cfg-options", "model_args.tokenizer=nowhere"], 1, "nowhere"),
        (["--contu", "3"], 2, "unknown flag --contu"),
    ],
)
def test_a_mistake_is_one_sentence(desk, capsys, argv, code, message):
    assert main(["browse", "c.py", *argv]) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mllm: error: ")
    assert message in error


def test_options_change_what_is_shown(desk):
    options = ["--cfg-options", "conversation.template=llava_v0", "conversation.formatter.brackets=round"]
    (row,) = browse("--start", "0", "--count", "1", *options).rows
    assert row["mark"] == f" Box ({BOX_TEXT[1:-1]}) , middle ({POINT_TEXT[1:-1]}) .###"


def test_with_several_images_each_place_lies_on_its_own(desk):
    row = {
        "image": ["wide.png", "wide.png"],
        "target": {"boxes": [[10, 5, 50, 45], [90, 0, 100, 50]], "image_index": [0, 1]},
        "conversations": [
            {"from": "human", "value": "Is <boxes> of <image> in <image> ?", "boxes_seq": [[0]]},
            {"from": "gpt", "value": "Only <boxes> and\n<boxes> .", "boxes_seq": [[1], [1, 0]]},
        ],
    }
    (desk / "rows.jsonl").write_text(json.dumps(row) + "\n")
    page = browse("--start", "0", "--count", "1")
    first, second = [
        markup.split("</svg>")[0] for markup in (desk / "browse.html").read_text().split("<svg class=")[1:]
    ]
    # The same box of the first image in question and answer is drawn once, as the answer's; the other one is number 2:
    # fractions 0.9, 25 / 100, 1, 75 / 100 of 28 pixels.
    assert first.count('class="line"') == second.count('class="line"') == 1
    assert 'class="place answer" data-n="1"' in first
    assert '<rect class="line" x="25.20" y="7.00" width="2.80" height="14.00"/>' in second
    assert [number for number, _ in page.rows[0]["at"]] == ["1", "2", "2 1"]
    assert "image 1 · 4 tokens in image 2 · 4 tokens" in page.rows[0]["text"]
    assert json.loads(page.rows[0]["attributes"]["data-problems"]) == []


def test_text_without_an_image_is_shown(desk):
    turns = [{"from": "human", "value": "Hello ?"}, {"from": "gpt", "value": "Hi\r there ."}]
    (desk / "rows.jsonl").write_text(json.dumps({"conversations": turns}) + "\n")
    (row,) = browse("--start", "0", "--count", "1").rows
    assert "no image" in row["text"]
    assert row["mark"] == " Hi\u240d there .</s>"
