import pickle

import pytest
from dataset.examples_grounding import EXAMPLES

from mllm.registry import DATASETS
from mllm.structures import Item, check_item


@pytest.fixture(params=sorted(EXAMPLES))
def built(request, shared_data, tmp_path):
    return DATASETS.build({"type": request.param, **EXAMPLES[request.param](shared_data, tmp_path)})


def test_every_item_of_an_example_passes_the_item_check(built):
    assert len(built) >= 2
    for index in range(min(len(built), 60)):
        item = Item.from_dict(built[index])
        check_item(item)
        assert item.meta["source"]
        assert item.meta["image_id"] is not None
        assert item.truth.get("references") or item.truth.get("boxes") or item.truth.get("answers")


def test_a_copy_for_a_worker_gives_the_same_items_and_holds_no_rows(built):
    content = pickle.dumps(built)
    assert pickle.loads(content)[1]["conversations"] == built[1]["conversations"]


def test_the_annotation_files_are_named(built):
    assert built.files
    assert all(isinstance(name, str) for name in built.files)
