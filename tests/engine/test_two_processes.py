"""Two CPU processes (DDP over gloo) equal one: loss, gradients, predictions."""

import json
from pathlib import Path

import pytest
import torch
from launch import checked, run, run_two
from PIL import Image, ImageDraw

JOB = Path(__file__).with_name("job.py")
SIZES = (1, 4, 7, 9)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Eight items; the first four, rank 0's micro-batch, have no image."""
    folder = tmp_path_factory.mktemp("items")
    rows = []
    for number in range(8):
        image = Image.new("RGB", (40, 30), "white")
        ImageDraw.Draw(image).rectangle([number, 5, number + 10, 20], fill="red")
        image.save(folder / f"{number}.png")
        answer = "word " * (1 + 3 * number)
        turns = [{"from": "human", "value": "say it"}, {"from": "gpt", "value": answer}]
        rows.append({"image": f"{number}.png" if number >= 4 else None, "conversations": turns})
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def one(items, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    checked(run([JOB, folder, 8, 1, items, ",".join(map(str, SIZES))]))
    return folder


@pytest.fixture(scope="module")
def two(items, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    checked(run_two([JOB, folder, 4, 1, items, ",".join(map(str, SIZES))]))
    return folder


def _same_step(first, second, world_size):
    jobs = [json.loads((folder / "job.json").read_text()) for folder in (first, second)]
    assert jobs[1]["world_size"] == world_size
    assert jobs[1]["loss"] == pytest.approx(jobs[0]["loss"], abs=1e-5)
    ours, theirs = (torch.load(folder / "parameters.pt", weights_only=True) for folder in (first, second))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=2e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 2), (1, 8)])
def test_the_split_into_micro_batches_changes_neither_loss_nor_gradient(items, one, tmp_path, batch, accumulation):
    checked(run([JOB, tmp_path, batch, accumulation, items]))
    _same_step(one, tmp_path, 1)


def test_one_rank_text_only_and_one_with_images_equal_one_process(one, two):
    _same_step(one, two, 2)
    trained = torch.load(two / "parameters.pt", weights_only=True)
    assert any("multi_modal_projector" in name for name in trained)


@pytest.mark.parametrize("size", SIZES)
def test_every_index_is_predicted_once_in_order_with_the_same_text(one, two, size):
    rows = [
        [json.loads(line) for line in (folder / f"n{size}_predictions.jsonl").read_text().splitlines()]
        for folder in (one, two)
    ]
    assert [row["index"] for row in rows[1]] == list(range(size))
    assert [row["pred"] for row in rows[1]] == [row["pred"] for row in rows[0]]
    assert any(row["pred"] for row in rows[0])
    assert not list(two.glob("*.part"))
