"""The launch files that ship, and DeepSpeed's settings by name."""

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
from launch import REPOSITORY

from mllm.config import deepspeed
from mllm.config.arguments import build_arguments
from mllm.config.deepspeed import resolve_deepspeed
from mllm.engine.combinations import check_combination
from mllm.errors import ConfigError
from mllm.models.tuning import Tuning

LAUNCH_FILES = sorted((REPOSITORY / "accelerate_config").glob("*.yaml"))
SETTINGS = sorted((REPOSITORY / "accelerate_config" / "deepspeed").glob("*.json"))


@pytest.fixture
def installed(monkeypatch):
    """As where DeepSpeed is installed and no launcher has spoken."""
    monkeypatch.setitem(sys.modules, "deepspeed", ModuleType("deepspeed"))
    for name in (deepspeed.LAUNCHED, deepspeed.LAUNCHED_FILE):
        monkeypatch.delenv(name, raising=False)


def test_all_launch_files_ship():
    names = {"default_config", "ddp", "fsdp", "zero2", "zero3", "zero3_offload", "cpu"}
    assert {path.stem for path in LAUNCH_FILES} == names
    assert {path.stem for path in SETTINGS} == {"zero2", "zero3", "zero3_offload"}


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_accelerate_reads_every_launch_file(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_machines == 1
    named = config.deepspeed_config.get("deepspeed_config_file") if hasattr(config, "deepspeed_config") else None
    assert named is None or (REPOSITORY / named) in SETTINGS


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_every_setting_is_told_in_the_table(path):
    told = set(re.findall(r"`([\w.]+)`", (path.parent / "README.md").read_text()))
    settings = json.loads(path.read_text())
    zero = settings.pop("zero_optimization")
    keys = {key for key in settings if key not in ("bf16", "fp16")} | (set(zero) - {"stage"})
    assert {"bf16.enabled", "fp16.enabled", "zero_optimization.stage"} <= told
    assert keys <= told, keys - told


def test_a_name_a_path_and_a_dict_are_settings(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_deepspeed({}) is None
    assert resolve_deepspeed({"deepspeed": "zero2"}) == str(SETTINGS[0])
    assert resolve_deepspeed({"deepspeed": "accelerate_config/deepspeed/zero3.json"}) == str(SETTINGS[1])
    (tmp_path / "mine.json").write_text("{}")
    assert resolve_deepspeed({"deepspeed": "mine.json"}) == "mine.json"
    assert resolve_deepspeed({"deepspeed": {"zero_optimization": {"stage": 2}}}) == {"zero_optimization": {"stage": 2}}


def test_the_file_that_a_launcher_names_is_found_wherever_the_run_starts(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(deepspeed.LAUNCHED, "true")
    monkeypatch.setenv(deepspeed.LAUNCHED_FILE, "accelerate_config/deepspeed/zero3_offload.json")
    assert resolve_deepspeed({}) is None
    import os

    assert os.environ[deepspeed.LAUNCHED_FILE] == str(SETTINGS[2])
    with pytest.raises(ConfigError, match="the launcher's file asks for DeepSpeed as well: leave out one"):
        resolve_deepspeed({"deepspeed": "zero2"})


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ("zero4", "training_args.deepspeed: 'zero4' is no file and none that ships; did you mean 'zero2'|'zero3'"),
        ("broken.json", r"training_args.deepspeed: broken.json is no JSON"),
        ("zero2.yaml", "'zero2.yaml' is no file and none that ships"),
    ],
)
def test_wrong_settings_are_named(installed, tmp_path, monkeypatch, asked, fault):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match=fault):
        resolve_deepspeed({"deepspeed": asked})


def test_a_missing_deepspeed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=r"pip install 'mllm\[deepspeed\]'"):
        resolve_deepspeed({"deepspeed": "zero2"})


def arguments(zero=None, **changes):
    plugin = None if zero is None else SimpleNamespace(hf_ds_config=SimpleNamespace(config={"zero_optimization": zero}))
    values = {"fsdp": None, "fsdp_config": None, "muon_lr": None, "do_train": True, "save_strategy": "steps"}
    return SimpleNamespace(deepspeed_plugin=plugin, **{**values, **changes})


@pytest.mark.parametrize(
    ("args", "tune", "fault"),
    [
        (arguments(fsdp=True), {"quantize": "nf4"}, "'nf4' under FSDP: packed weights cannot be split"),
        (arguments({"stage": 3}), {"quantize": "int8"}, "'int8' under ZeRO 3: packed weights cannot be split"),
        (arguments({"stage": 3}), None, "ZeRO 3 without stage3_gather_16bit_weights_on_model_save"),
        (arguments(fsdp=True, fsdp_config={"version": 1}), None, "FSDP 1 is gone from transformers"),
        (arguments(fsdp=True, muon_lr=1e-3), None, "muon_lr needs whole matrices"),
        (arguments({"stage": 2}, muon_lr=1e-3), None, "muon_lr needs whole matrices"),
    ],
)
def test_what_an_engine_cannot_do_is_said_before_anything_is_loaded(args, tune, fault):
    with pytest.raises(ConfigError, match=fault):
        check_combination(args, tune and Tuning(quantize=tune["quantize"]))


def test_what_engines_can_do_passes():
    gathered = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
    for args in (arguments(), arguments(fsdp=True), arguments({"stage": 2}), arguments(gathered)):
        check_combination(args, Tuning())
    check_combination(arguments({"stage": 2}), Tuning(quantize="nf4"))
    check_combination(arguments({"stage": 3}, do_train=False, save_strategy="no"), None)


def test_a_launch_with_the_first_fsdp_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigError, match="set fsdp_version: 2"):
        check_combination(arguments(), None)


@pytest.mark.parametrize(
    ("training", "plugin"),
    [
        ({"fsdp": True}, {"reshard_after_forward": True}),
        ({"fsdp": True, "fsdp_config": {"reshard_after_forward": False}}, {"reshard_after_forward": False}),
        ({"fsdp": "full_shard auto_wrap"}, {"reshard_after_forward": True}),
        ({"fsdp": "full_shard offload auto_wrap"}, {"cpu_offload": True}),
        (
            {"fsdp": "full_shard auto_wrap", "fsdp_config": {"transformer_layer_cls_to_wrap": ["X"]}},
            {"transformer_cls_names_to_wrap": "X"},
        ),
    ],
)
def test_fsdp_of_a_config_is_understood_in_its_old_and_new_words(tmp_path, training, plugin):
    args = build_arguments({"output_dir": str(tmp_path), "use_cpu": True, **training})
    assert args.fsdp is True
    assert {**args.fsdp_plugin_args, **plugin, "fsdp_version": 2} == args.fsdp_plugin_args
