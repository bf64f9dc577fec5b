"""The main job: the small LLaVA that ships learns referring expressions on drawn scenes."""

import json

import pytest
from launch import FINETUNE, REPOSITORY, checked, run

from mllm.config import resolve
from mllm.dataset.drawn import make_scene
from mllm.grounding.geometry import box_iou

CONFIG = REPOSITORY / "config" / "toy_rec_llava.py"
ASSET = REPOSITORY / "mllm" / "assets" / "toy_llava"


def test_weights_and_tokenizer_ship_within_8_megabytes():
    files = [path for path in ASSET.iterdir() if path.is_file()]
    assert {"model.safetensors", "tokenizer.json", "config.json", "README.md"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) <= 8_000_000


def _splits(value):
    if isinstance(value, dict):
        if "split" in value:
            yield value["split"]
        for one in value.values():
            yield from _splits(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _splits(one)


def _types(value):
    if isinstance(value, dict):
        yield value.get("type")
        for one in value.values():
            yield from _types(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _types(one)


def test_no_stage_saw_the_test_pictures_and_pretraining_saw_no_rec_prompt():
    seen = {}
    for stage in ("1", "2"):
        data = resolve([str(REPOSITORY / "config" / f"toy_pretrain_stage{stage}_llava.py")]).values["data_args"][
            "train"
        ]
        assert "DrawnREC" not in set(_types(data))
        seen[stage] = set(_splits(data))
    data = resolve([str(CONFIG)]).values["data_args"]
    train = set(_splits(data["train"]))
    held_out = set(_splits({key: value for key, value in data.items() if key != "train"}))
    assert held_out == {"val", "test"}
    assert not held_out & set.union(train, *seen.values())
    # Splits of different names are different worlds: no picture of one is in the other.
    pictures = [{str(make_scene(0, split, index).shapes) for index in range(500)} for split in ("train", "val", "test")]
    assert not pictures[0] & pictures[1]
    assert not pictures[0] & pictures[2]


@pytest.mark.parametrize("options", [[], ["--cfg-options", "model_args.from_scratch=True"]], ids=["shipped", "scratch"])
def test_the_demo_starts_from_shipped_weights_or_from_scratch(options, tmp_path):
    words = ["--output_dir", tmp_path, "--max_steps", 2, "--do_eval", "false", "--do_predict", "false"]
    words += ["--do_multi_predict", "false", "--eval_on_start", "false", "--logging_steps", 1, "--report_to", "none"]
    checked(run([FINETUNE, CONFIG, *words, *options]))
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    first = next(row["loss"] for row in history if "loss" in row)
    # A model that has seen the world knows how its answers look; random weights pay log(1,200) = 7.1 a token.
    assert (first > 4) == bool(options)


def _captions(count):
    """The formatter, and for ``count`` unseen pictures the model's caption with the true one."""
    from mllm.dataset.single_image_conversation import SingleImageConvDataset
    from mllm.registry import DATASETS, MODELS

    values = resolve([str(CONFIG)]).values
    family = MODELS.build(values["model_args"])
    processor = family.build_processor(values["conversation"])
    model = family.build_model(processor).eval()
    question = "<image> Describe the picture and give the box of each object."
    items = DATASETS.build({"type": "DrawnGroundedCaption", "count": count, "split": "val", "questions": question})
    dataset = SingleImageConvDataset(items, processor, mode="generate")
    samples = [dataset[index] for index in range(count)]
    batch = processor.collate([sample.features for sample in samples], layout="left")
    ids = family.generate(model, batch, max_new_tokens=120, do_sample=False, pad_token_id=processor.pad_id)
    return processor.formatter, list(
        zip(processor.decode(ids), [sample.record.target for sample in samples], strict=True)
    )


def _named_boxes(formatter, text):
    """``a red circle <box>, a small cross <box>`` → [(words, box)]."""
    groups = formatter.parse_boxes(text).groups
    phrases = [piece.split("<b_ed>")[-1].strip(" ,.").split() for piece in text.split("<b_st>")[: len(groups)]]
    return [(set(words) - {"a", "and", "shape"}, boxes[0]) for words, boxes in zip(phrases, groups, strict=True)]


def test_the_shipped_model_sees():
    """The words of its captions are those of what lies in the boxes that it puts behind them."""
    formatter, captions = _captions(20)
    right = total = 0
    for answer, target in captions:
        truth = _named_boxes(formatter, target)
        for words, box in _named_boxes(formatter, answer):
            nearest = max(truth, key=lambda one: box_iou(one[1], box))
            right += words <= nearest[0] and box_iou(nearest[1], box) > 0.5
            total += 1
    # Of 200 pictures 98 % fit; the words of another object of the picture would in 10 %.
    assert total >= 60
    assert right / total >= 0.8


@pytest.mark.slow
def test_the_demo_reaches_its_bar(tmp_path):
    words = ["--output_dir", tmp_path, "--report_to", "none"]
    checked(run([FINETUNE, CONFIG, *words]))
    results = json.loads((tmp_path / "all_results.json").read_text())
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    before = next(row for row in history if "eval_acc@0.5" in row)
    assert before["step"] == 0
    assert results["eval_acc@0.5"] >= 0.80
    assert results["test_acc@0.5"] >= 0.80
    assert results["eval_acc@0.5"] - before["eval_acc@0.5"] >= 0.3
    assert max(before["eval_failure_rate"], results["eval_failure_rate"]) <= 0.1
    assert results["multitest_blank_pictures_acc@0.5"] <= 0.15
    assert results["multitest_wrong_expression_acc@0.5"] <= 0.15
    assert (tmp_path / "report.html").read_text().count("<svg") > 10
