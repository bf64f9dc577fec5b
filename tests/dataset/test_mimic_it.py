import base64
import io
import json
import pickle

import pytest
from PIL import Image

from mllm.dataset.mimic_it import clean_question, evenly_spaced
from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import Item, check_item


def encoded(colour, image_size=(6, 4), encode=base64.b64encode):
    stream = io.BytesIO()
    Image.new("RGB", image_size, colour).save(stream, "JPEG")
    return encode(stream.getvalue()).decode()


IMAGES = {
    "LA_IMG_1": encoded("red", (6, 4)),
    "LA_IMG_2": encoded("blue", (8, 4), base64.urlsafe_b64encode),
    "LA_IMG_3": encoded("lime", (10, 4)),
}
INSTRUCTIONS = {
    "LA_00_INS_1": {"instruction": " Which colour?", "answer": "It is\nred. ", "image_ids": ["LA_IMG_1"]},
    "LA_00_INS_2": {"instruction": "And here?", "answer": "Blue.", "image_ids": ["LA_IMG_2"]},
    "LA_00_INS_3": {
        "instruction": "?!What-is/the colour?",
        "answer": "Lime; NOT green.",
        "image_ids": ["LA_IMG_3"],
        "rel_ins_ids": ["LA_00_INS_1"],
    },
    "LA_00_INS_4": {"instruction": "Is it bright?", "answer": "Yes.", "image_ids": ["LA_IMG_3"], "rel_ins_ids": []},
    "LA_00_INS_5": {"instruction": "What is white?", "answer": "Snow.", "image_ids": []},
}
CONTEXT = {
    "LA_00_INS_3": ["LA_00_INS_1", "LA_00_INS_2"],
    "LA_00_INS_4": ["LA_00_INS_3"],
    "LA_00_INS_1": [],
    "LA_00_INS_5": [],
}


@pytest.fixture
def mimic(tmp_path):
    def make(instructions=INSTRUCTIONS, images=IMAGES, context=None, **options):
        paths = {"instructions": tmp_path / "LA_instructions.json"}
        paths["instructions"].write_text(json.dumps({"meta": {"version": "0.0.1"}, "data": instructions}))
        for name, content in (("images", images), ("context", context)):
            if isinstance(content, dict):
                paths[name] = tmp_path / f"LA_{name}.json"
                paths[name].write_text(json.dumps(content))
            elif content is not None:
                paths[name] = content
        return DATASETS.build(dict(type="MIMICIT", **{key: str(path) for key, path in paths.items()}, **options))

    return make


def checked(raw):
    item = Item.from_dict(raw)
    check_item(item)
    return item


def test_in_context_examples_are_earlier_turns_with_their_own_images(mimic):
    dataset = mimic(context=CONTEXT)
    assert len(dataset) == 4
    item = checked(dataset[0])
    assert [turn.text for turn in item.conversations] == [
        "<image>\nWhich colour?",
        "It is red.",
        "<image>\nAnd here?",
        "Blue.",
        "<image>\n?!What-is/the colour?",
        "Lime; NOT green.",
    ]
    assert [image.size for image in item.images] == [(6, 4), (8, 4), (10, 4)]
    red, green, blue = item.images[1].getpixel((2, 2))
    assert blue > 200 > 50 > max(red, green)
    assert item.truth["references"] == ["Lime; NOT green."]
    expected = {"question_id": "LA_00_INS_3", "image_id": "LA_IMG_3", "category": "LA_00", "examples": 2}
    assert {key: item.meta[key] for key in expected} == expected


def test_turns_about_one_image_show_it_once(mimic):
    # INS_4 follows INS_3; both are about LA_IMG_3.
    dataset = mimic(context=CONTEXT)
    item = checked(dataset[1])
    assert [turn.text.startswith("<image>") for turn in item.conversations[::2]] == [True, False]
    assert len(item.images) == 1
    characters = sum(len(INSTRUCTIONS[f"LA_00_INS_{n}"][key]) for n in (3, 4) for key in ("instruction", "answer"))
    assert dataset.length_hint(1) == (characters, 1)


def test_an_instruction_without_image_is_text(mimic):
    item = checked(mimic(context=CONTEXT, images=None)[3])
    assert item.images == []
    assert item.conversations[0].text == "What is white?"


def test_without_a_train_file_every_instruction_is_a_row(mimic):
    dataset = mimic()
    assert len(dataset) == 5
    assert len(dataset[2]["conversations"]) == 2
    related = mimic(related=True)
    assert [len(related[index]["conversations"]) for index in range(5)] == [2, 2, 4, 2, 2]


@pytest.mark.parametrize(("count", "questions"), [(0, 1), (1, 2), (5, 3)])
def test_the_last_examples_are_kept(mimic, count, questions):
    item = mimic(context=CONTEXT, max_examples=count)[0]
    assert len(item["conversations"]) == 2 * questions
    assert item["conversations"][-1]["value"] == "Lime; NOT green."
    if count == 1:
        assert item["conversations"][0]["value"] == "<image>\nAnd here?"


def test_frames_are_taken_at_even_distances(mimic):
    frames = [f"F{n}" for n in range(9)]
    instructions = {"V_INS_1": {"instruction": "What happens?", "answer": "Much.", "image_ids": frames}}
    images = {name: encoded("red", (4 + n, 4)) for n, name in enumerate(frames)}
    item = checked(mimic(instructions, images, max_images=3)[0])
    # Of nine frames the first, the middle and the last.
    assert [image.size[0] for image in item.images] == [4, 8, 12]
    assert item.conversations[0].text == "<image>\n<image>\n<image>\nWhat happens?"
    assert evenly_spaced(frames, 1) == ["F0"]
    assert evenly_spaced(frames, 4) == ["F0", "F2", "F5", "F8"]
    assert evenly_spaced(frames, None) == frames
    with pytest.raises(ConfigError, match="max_images=0 must be at least 1"):
        mimic(max_images=0)


def test_questions_are_cleaned_on_demand_and_answers_never(mimic):
    item = mimic(clean_questions=True)[2]
    assert item["conversations"][0]["value"] == "<image>\nwhat is the colour?"
    assert item["conversations"][1]["value"] == "Lime; NOT green."


def test_cleaning_keeps_256_words():
    assert clean_question("*#Well-known/or   not?") == "well known or not?"
    assert clean_question("a " * 300).split() == ["a"] * 256


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"context": {"LA_00_INS_1": ["X"]}}, r"context.json\[LA_00_INS_1\]: instruction 'X' is not in"),
        ({"context": {"LA_00_INS_9": []}}, r"context.json\[LA_00_INS_9\]: instruction 'LA_00_INS_9' is not in"),
        ({"context": {"LA_00_INS_1": "LA"}}, r"context.json\[LA_00_INS_1\]: expected a list of in-context"),
        ({"images": {"LA_IMG_2": "x"}}, r"json:data\[LA_00_INS_1\]: image 'LA_IMG_1' of '.*images.json' is not there"),
        ({"images": {"LA_IMG_1": "§"}}, r"image 'LA_IMG_1' of '.*images.json': not base64"),
        ({"images": {"LA_IMG_1": "aGk="}}, r"image 'LA_IMG_1' of '.*images.json': not an image"),
        ({"images": {"LA_IMG_1": {"a": 1}}}, r"image 'LA_IMG_1' of '.*images.json': expected base64 text"),
        ({"images": None}, r"json:data\[LA_00_INS_1\]: has images but no images=… is given"),
        ({"instructions": {"a": {"instruction": "b"}}}, r"json:data\[a\]: field 'answer' is missing"),
    ],
)
def test_what_is_missing_is_named(mimic, changed, message):
    with pytest.raises(DataError, match=message):
        mimic(**changed)[0]


def test_parquet_without_pyarrow_names_the_extra(mimic, tmp_path, monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="pyarrow")

    monkeypatch.setattr("mllm.utils.imports.import_module", refuse)
    with pytest.raises(ConfigError, match=r"'pyarrow' is not installed: pip install 'mllm\[parquet\]'"):
        mimic(images=tmp_path / "LA.parquet")


def test_parquet_gives_the_same_items(mimic, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"base64": list(IMAGES.values()), "__index_level_0__": list(IMAGES)})
    parquet.write_table(table, tmp_path / "LA.parquet", row_group_size=2)
    ours = mimic(images=tmp_path / "LA.parquet", context=CONTEXT)
    theirs = mimic(context=CONTEXT)
    for dataset in (ours, pickle.loads(pickle.dumps(ours))):
        for one, other in zip(dataset, theirs, strict=True):
            assert one["conversations"] == other["conversations"]
            assert [image.tobytes() for image in one["images"]] == [image.tobytes() for image in other["images"]]


def test_parquet_without_the_column_is_named(mimic, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"id": ["a"], "jpeg": ["b"]}), tmp_path / "LA.parquet")
    with pytest.raises(DataError, match="expected the columns 'base64' and an id, got id, jpeg"):
        mimic(images=tmp_path / "LA.parquet")
