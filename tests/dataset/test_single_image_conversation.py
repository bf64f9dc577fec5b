import pytest
import tiny
from PIL import Image

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import DataError


@pytest.fixture(scope="module")
def processor():
    return tiny.processor()


def _item(**changes):
    item = {
        "image": Image.new("RGB", (100, 50), "red"),
        "target": {"boxes": [[0, 0, 50, 25], [50, 25, 100, 50]], "points": [[100, 50]]},
        "conversations": [
            {"from": "human", "value": "<image> What is at <boxes> and <boxes> ?", "boxes_seq": [[0], [1, 0]]},
            {"from": "gpt", "value": "{a} 100 % <image> <points>", "points_seq": [[0]]},
        ],
    }
    return {**item, **changes}


def test_coordinates_become_fractions_of_the_square_canvas(processor):
    sample = SingleImageConvDataset([_item()], processor)[0]
    # 100x50 on a 100x100 square: y moves down by floor(50 / 2) = 25. Box 0: (0, 25, 50, 50) / 100.
    assert sample.record.meta["prompt"] == (
        "<image> What is at [0.000,0.250,0.500,0.500] and [0.500,0.500,1.000,0.750;0.000,0.250,0.500,0.500] ?"
    )
    # Point (100, 50) -> (100, 75) / 100. Braces, percent signs and <image> in an answer are plain text.
    assert sample.record.target == "{a} 100 % <image> [1.000,0.750]"


def test_labels_are_the_answer_and_its_end_mark_alone(processor):
    sample = SingleImageConvDataset([_item()], processor)[0]
    ids, labels = sample.features["input_ids"], sample.features["labels"]
    trained = [label for label in labels if label != -100]
    assert processor.tokenizer.decode(trained).strip() == "{a} 100 % <image> [1.000,0.750]</s>"
    images = [i for i, token in enumerate(ids) if token == processor.image_token_id]
    assert len(images) == 4  # 28 px / 14 px, squared
    assert all(labels[i] == -100 for i in images)


def test_the_record_has_the_truth_in_original_pixels_and_the_way_back(processor):
    record = SingleImageConvDataset([_item()], processor, mode="generate")[0].record
    assert record.truth["points"] == [[100, 50]]
    assert record.frames[0].denormalize((1.0, 0.75)) == pytest.approx((100, 50))


def test_one_unmentioned_image_goes_in_front_and_is_noted(processor):
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    sample = SingleImageConvDataset([_item(conversations=turns, target={})], processor)[0]
    assert sample.record.meta["prompt"] == "<image>\nhi"
    assert sample.notes == [("image put in front", "list[0]")]


def test_text_without_image_has_no_pixels(processor):
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    sample = SingleImageConvDataset([{"conversations": turns}], processor)[0]
    assert sample.features["pixel_values"] is None


def _broken():
    return _item(target={"boxes": [[0, 0, 500, 25], [50, 25, 100, 50]], "points": [[100, 50]]})


def test_a_fault_names_data_set_index_and_field(processor):
    with pytest.raises(DataError, match=r"train\[1\]: target.boxes\[0\] = .* outside the 100x50 image"):
        SingleImageConvDataset([_item(), _broken()], processor, name="train")[1]


def test_training_replaces_a_failed_sample_by_the_next_of_the_same_source(processor):
    dataset = SingleImageConvDataset([_item(), _broken(), _item()], processor, on_error="replace")
    sample = dataset[(0, 1)]
    assert sample.record.index == 2
    assert [kind for kind, _ in sample.notes] == ["replaced"]
    assert "list[1]" in sample.notes[0][1]


def test_nothing_readable_is_an_error_even_when_replacing(processor):
    with pytest.raises(DataError, match="none of the 2 rows of the source of row 0 can be read"):
        SingleImageConvDataset([_broken(), _broken()], processor, on_error="replace")[0]


def test_generation_never_replaces_but_records_the_failure(processor):
    sample = SingleImageConvDataset([_broken(), _item()], processor, mode="generate")[0]
    assert sample.record.index == 0
    assert "outside the 100x50 image" in sample.record.failure
    assert sample.features["input_ids"]


@pytest.mark.parametrize("max_length", [None, 40])
def test_a_sample_that_trains_nothing_is_an_error(processor, max_length):
    turns = [
        {"from": "human", "value": "<image>" + "why " * 40},
        {"from": "gpt", "value": "yes" if max_length else " "},
    ]
    short = tiny.processor(template={"type": "vicuna_v1.1", "system": ""}, max_length=max_length)
    with pytest.raises(DataError, match="no token would be trained"):
        SingleImageConvDataset([_item(conversations=turns, target={})], short)[0]


def test_a_truncated_sample_is_noted(processor):
    turns = [{"from": "human", "value": "<image> why"}, {"from": "gpt", "value": "because " * 60}]
    short = tiny.processor(template={"type": "vicuna_v1.1", "system": ""}, max_length=60)
    sample = SingleImageConvDataset([_item(conversations=turns, target={})], short)[0]
    assert len(sample.features["input_ids"]) == 60
    assert ("truncated", "list[0]") in sample.notes


def test_an_empty_data_set_is_an_error(processor):
    with pytest.raises(DataError, match="the data set is empty"):
        SingleImageConvDataset([], processor)


def test_epochs_choose_other_templates_the_same_way_every_time(processor):
    from mllm.registry import DATASETS

    dataset = SingleImageConvDataset(DATASETS.build({"type": "DrawnREC", "count": 4}), processor)
    prompts = [dataset[(epoch, 1)].record.meta["prompt"] for epoch in range(4)]
    assert len(set(prompts)) > 1
    assert prompts == [dataset[(epoch, 1)].record.meta["prompt"] for epoch in range(4)]
