"""What every registered data set must keep; new ones are picked up from the registry."""

import pytest

from mllm.registry import DATASETS
from mllm.structures import Item, check_item

DRAWN = {"count": 6}
ARGUMENTS = {
    "ConcatDataset": lambda shared: {"datasets": [{"type": "DrawnREC", "count": 3}, {"type": "DrawnREC", "count": 3}]},
    "DrawnConversation": lambda shared: {"count": 6, "tasks": [{"type": "DrawnREG"}, {"type": "DrawnVQA"}]},
    "BlankImages": lambda shared: {"dataset": {"type": "DrawnREC", "count": 3}},
    "RefCOCO": lambda shared: {
        "root": str(shared / "refcoco_mini"),
        "image_root": str(shared / "refcoco_mini/images/train2014"),
        "split": "val",
    },
    "RECJsonl": lambda shared: {
        "path": str(shared / "refcoco_mini/shikra_jsonl/REC_refcoco_unc_val.jsonl"),
        "image_root": str(shared / "refcoco_mini/images/train2014"),
    },
}


@pytest.fixture(params=[name for name in DATASETS.names() if name != "ItemJsonl"])
def dataset(request):
    arguments = ARGUMENTS.get(request.param)
    values = arguments(request.getfixturevalue("shared_data")) if arguments else DRAWN
    return DATASETS.build({"type": request.param, **values})


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
