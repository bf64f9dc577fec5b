"""Batches without images, of the families that put images in place of tokens."""

import importlib.util
import json
from pathlib import Path

import pytest
import tiny
import torch
from contract.twins import TWINS, built
from launch import checked, run, run_two
from PIL import Image, ImageDraw

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.models.no_image import ImageTokenFamily
from mllm.models.tuning import Tuning
from mllm.registry import MODELS

NAMES = [name for name in MODELS.names() if issubclass(MODELS.get(name), ImageTokenFamily)]
JOB = Path(__file__).resolve().parents[1] / "engine" / "engine_job.py"
DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed: pip install 'mllm[deepspeed]'"
)


@pytest.fixture(scope="module", params=NAMES)
def twin(request):
    return built(TWINS[request.param])


def item(answer, image=None):
    turns = [{"from": "human", "value": "say it"}, {"from": "gpt", "value": answer}]
    return {"image": image, "conversations": turns}


def batch(processor, items, layout="left"):
    mode = "generate" if layout == "left" else "train"
    dataset = SingleImageConvDataset(items, processor, mode=mode)
    return processor.collate([dataset[index].features for index in range(len(items))], layout=layout)


@pytest.mark.parametrize("beams", [1, 2])
def test_text_alone_is_answered_as_by_the_language_model_alone(twin, beams):
    family, processor, model = twin
    image = Image.new("RGB", (40, 30), "red")
    options = {"max_new_tokens": 5, "do_sample": False, "num_beams": beams, "pad_token_id": processor.pad_id}
    # An image batch before it: positions of Qwen-VL must not be its.
    family.generate(model.eval(), batch(processor, [item("a", image), item("b", image)]), **options)
    prompt = batch(processor, [item("a"), item("b")])
    ours = family.generate(model, prompt, **options)
    text = {name: prompt[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(ours, model.generate(**text, **options)[:, prompt["input_ids"].shape[1] :])


def test_text_alone_has_the_logits_of_the_language_model_alone(twin):
    _, processor, model = twin
    image = Image.new("RGB", (40, 30), "red")
    inputs = [batch(processor, [item("a", one), item("a b c d e", one)], "right") for one in (image, None)]
    model.eval()
    with torch.no_grad():
        for one in inputs:
            del one["labels"]
            found = model(**one).logits
        expected = model.lm_head(
            model.model.language_model(**{name: one[name] for name in ("input_ids", "attention_mask")})[0]
        )
    seen = one["attention_mask"].bool()
    torch.testing.assert_close(found[seen], expected[seen])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fsdp", pytest.param("zero3", marks=DEEPSPEED)])
@pytest.mark.parametrize("name", [name for name in NAMES if TWINS[name].plain])
def test_a_rank_without_images_keeps_step_with_one_that_has_some(tmp_path, name, engine):
    rows = []
    for number in range(8):
        image = Image.new("RGB", (40 + 10 * number, 30), "white")
        ImageDraw.Draw(image).rectangle([number, 5, number + 10, 20], fill="red")
        image.save(tmp_path / f"{number}.png")
        rows.append(item("word " * (1 + number), f"{number}.png" if number % 4 >= 2 else None))
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    family, processor, model = built(TWINS[name], Tuning(freeze=[], save="all"))
    family.save_weights(model, None, tmp_path / "weights")
    processor.save_pretrained(tmp_path / "weights")
    data = {"type": "ItemJsonl", "path": str(path), "image_root": str(tmp_path)}
    text = tiny.config_text(
        "",
        training_args={
            "do_predict": True,
            "learning_rate": 5e-3,
            "per_device_eval_batch_size": 2,
            "train_sampling_strategy": "sequential",
        },
        model_args={"type": name, "pretrained": str(tmp_path / "weights")},
        data_args={
            "train": data,
            "validation": None,
            "test": {"dataset": data, "evaluators": [{"type": "ExactMatchEvaluator"}]},
        },
        conversation=TWINS[name].conversation,
    )
    (tmp_path / "c.py").write_text(text)
    one, two = tmp_path / "one", tmp_path / "two"
    checked(run([JOB, "ddp", tmp_path / "c.py", "--output_dir", one, "--per_device_train_batch_size", 4]))
    words = ["--output_dir", two, "--per_device_train_batch_size", 2]
    checked(run_two([JOB, engine, tmp_path / "c.py", *words], timeout=300))
    assert json.loads((two / "run.json").read_text())["world_size"] == 2
    histories = [json.loads((folder / "trainer_state.json").read_text())["log_history"] for folder in (one, two)]
    losses = [[row["loss"] for row in history if "loss" in row] for history in histories]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    answers = [(folder / "test_predictions.jsonl").read_text().splitlines() for folder in (one, two)]
    assert [json.loads(line)["pred"] for line in answers[1]] == [json.loads(line)["pred"] for line in answers[0]]
