"""What every registered data set must keep; new ones are picked up from the registry."""

import importlib
import inspect
import json

import pytest
from PIL import Image

from mllm.registry import DATASETS
from mllm.structures import Item, check_item

DRAWN = {"count": 6}


def item_jsonl(shared, folder):
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]
    rows = [{"image": "a.png", "conversations": turns}] * 2
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(folder / "items.jsonl"), "image_root": str(folder)}


ARGUMENTS = {
    "ConcatDataset": lambda shared, folder: {
        "datasets": [{"type": "DrawnREC", "count": 3}, {"type": "DrawnREC", "count": 3}]
    },
    "DrawnConversation": lambda shared, folder: {"count": 6, "tasks": [{"type": "DrawnREG"}, {"type": "DrawnVQA"}]},
    "CleanAnswers": lambda shared, folder: {"dataset": {"type": "DrawnREC", "count": 3}},
    "SpokenQuestions": lambda shared, folder: {"dataset": {"type": "DrawnREC", "count": 3}, "sound_root": str(folder)},
    "BlankImages": lambda shared, folder: {"dataset": {"type": "DrawnREC", "count": 3}},
    "RepeatDataset": lambda shared, folder: {"dataset": {"type": "DrawnREC", "count": 3}, "times": 2.5},
    "SubsetDataset": lambda shared, folder: {"dataset": {"type": "DrawnREC", "count": 9}, "count": 3},
    "InterleaveDataset": lambda shared, folder: {"datasets": [{"type": "DrawnREC", "count": 9}] * 2},
    "ConcatDatasetWithShuffle": lambda shared, folder: {"datasets": [{"type": "DrawnREC", "count": 3}] * 2},
    "ItemJsonl": item_jsonl,
    "RefCOCO": lambda shared, folder: {
        "root": str(shared / "refcoco_mini"),
        "image_root": str(shared / "refcoco_mini/images/train2014"),
        "split": "val",
    },
    "RECJsonl": lambda shared, folder: {
        "path": str(shared / "refcoco_mini/shikra_jsonl/REC_refcoco_unc_val.jsonl"),
        "image_root": str(shared / "refcoco_mini/images/train2014"),
    },
}
for name in ("examples_grounding", "examples_vqa"):
    ARGUMENTS |= importlib.import_module(f"dataset.{name}").EXAMPLES


@pytest.fixture(params=DATASETS.names())
def dataset(request, tmp_path):
    arguments = ARGUMENTS.get(request.param)
    if arguments is None and "count" not in inspect.signature(DATASETS.get(request.param)).parameters:
        pytest.skip(f"{request.param} has no example: add its arguments to an EXAMPLES in tests/dataset/examples_*.py")
    values = arguments(request.getfixturevalue("shared_data"), tmp_path) if arguments else DRAWN
    return DATASETS.build({"type": request.param, **values})


def test_the_data_sets_that_ship_have_examples():
    shipped = {name for name in DATASETS.names() if not name.startswith("Drawn")}
    assert len(shipped & set(ARGUMENTS)) >= 40


def test_first_items_pass_the_item_check(dataset):
    for index in range(min(len(dataset), 6)):
        item = Item.from_dict(dataset[index])
        check_item(item)
        assert item.images
        assert item.conversations[-1].role == "gpt"
        assert item.conversations[-1].text.strip()


def test_the_same_index_gives_the_same_item(dataset):
    first, again = dataset[1], dataset[1]
    assert first["conversations"] == again["conversations"]
    assert first.get("target") == again.get("target")


def test_epochs_are_deterministic(dataset):
    turns = [[dataset.item(1, epoch)["conversations"] for epoch in (0, 1, 2)] for _ in range(2)]
    assert turns[0] == turns[1]


def test_the_length_hint_needs_no_image(dataset, monkeypatch):
    from PIL import Image

    def refuse(*args, **kwargs):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)
    characters, images = dataset.length_hint(0)
    assert characters > 0
    assert images >= 0


def test_an_index_past_the_end_is_an_index_error(dataset):
    with pytest.raises(IndexError):
        dataset[len(dataset)]
