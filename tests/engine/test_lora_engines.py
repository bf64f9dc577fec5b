"""Adapters under every engine: two processes leave the same checkpoint, and it is read by one process alone.

FSDP and ZeRO run on the CPU over gloo, see engines.py for what that shows.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import tiny
import torch
from launch import checked, run_two
from safetensors.torch import load_file

from mllm.models.build import build_family

JOB = Path(__file__).with_name("engine_job.py")
DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed: pip install 'mllm[deepspeed]'"
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    family = tiny.family()
    processor = family.build_processor(tiny.CONVERSATION)
    family.save_weights(family.build_model(processor), None, folder / "base")
    processor.save_pretrained(folder / "base")
    text = tiny.config_text(
        "unset",
        model_args={"type": "LLaVA", "pretrained": str(folder / "base")},
        training_args={"max_steps": 3, "per_device_train_batch_size": 2, "do_predict": True, "learning_rate": 1e-2},
        tune={"lora": {"r": 4, "modules_to_save": ["projector"]}},
    )
    (folder / "config.py").write_text(text)
    return folder / "config.py"


def _train(engine, config, folder):
    checked(run_two([JOB, engine, config, "--output_dir", folder]))
    losses = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row["loss"] for row in losses if "loss" in row], load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def plain(config, tmp_path_factory):
    return _train("ddp", config, tmp_path_factory.mktemp("ddp"))


@pytest.mark.parametrize("engine", ["fsdp", *(pytest.param(name, marks=DEEPSPEED) for name in ("zero2", "zero3"))])
def test_adapters_are_trained_and_saved_as_under_ddp(engine, config, plain, tmp_path):
    losses, adapters = _train(engine, config, tmp_path)
    assert losses[0] == pytest.approx(plain[0][0], abs=1e-5)
    assert adapters.keys() == plain[1].keys()
    assert {name: one.shape for name, one in adapters.items()} == {name: one.shape for name, one in plain[1].items()}
    if engine != "zero3":  # ZeRO-3 draws the adapters' first values in another order
        assert losses == pytest.approx(plain[0], abs=1e-5)
        for name, value in plain[1].items():
            torch.testing.assert_close(adapters[name], value, msg=name)
    family = build_family({"pretrained": str(tmp_path)})
    model = family.build_model(family.build_processor({}))
    stored = {re.sub(r"^base_model\.model\.", "", name): value for name, value in adapters.items()}
    for name, value in stored.items():
        assert torch.equal(model.get_parameter(re.sub(r"(lora_[AB])\.", r"\1.default.", name)), value), name
