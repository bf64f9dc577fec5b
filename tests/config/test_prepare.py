"""One resolved config: precedence, origins, what is refused before a run."""

import os
import sys

import pytest

from mllm.config import Seq2SeqArguments, prepare_args, resolve
from mllm.config.arguments import build_arguments
from mllm.config.checks import last_checkpoint
from mllm.errors import CheckpointError, ConfigError

# Not a conftest.py: other tests import the one above by its name.
pytest_plugins = ("config_fixtures",)


@pytest.fixture(autouse=True)
def _keep_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_precedence_is_default_base_file_options_flags(leaf):
    """num_train_epochs: base 3, file 5, option 6, flag 7; each layer hides those below."""
    words = ["--num_train_epochs", "7", "--cfg-options", "training_args.num_train_epochs=6"]
    for argv, expected in ((["leaf"], 5), (["leaf", *words[2:]], 6), (["leaf", *words], 7)):
        assert resolve(argv).values["training_args"]["num_train_epochs"] == expected
    cfg, arguments = prepare_args(["leaf", *words])
    assert isinstance(arguments, Seq2SeqArguments)
    assert (arguments.num_train_epochs, arguments.learning_rate, arguments.output_dir) == (7, 1e-3, "out")
    assert arguments.per_device_train_batch_size == 8
    assert arguments.remove_unused_columns is False
    assert cfg.training_args.num_train_epochs == 7
    assert cfg.data_args.train.datasets[0].count == 1
    assert cfg.get("conversation", {}) == {}


def test_origins_name_the_place_of_every_value(leaf):
    resolved = resolve(
        ["leaf", "--seed", "3", "--eval_steps", "10", "--cfg-options", "model_args.width=9", "+model_args.new=[1,2]"]
    )
    origins = {".".join(map(str, key)): origin for key, origin in resolved.origins.items()}
    assert origins["training_args.learning_rate"] == "config/_base_/train.py"
    assert origins["training_args.num_train_epochs"] == "config/leaf.py"
    assert origins["training_args.seed"] == "flag"
    assert origins["training_args.eval_steps"] == "flag"  # although the base says the same value
    assert origins["model_args.width"] == "--cfg-options"
    assert origins["model_args.new.1"] == "--cfg-options"
    assert origins["model_args.type"] == "config/leaf.py"


def test_old_names_work_in_files_options_and_flags(leaf, workspace, caplog):
    workspace("old.py", "training_args = dict(evaluation_strategy='epoch', warmup_ratio=0.1)")
    argv = ["old", "--cfg-options", "training_args.group_by_length=true", "--overwrite_output_dir", "--no_cuda"]
    assert resolve(argv).values["training_args"] == {
        "eval_strategy": "epoch",
        "warmup_steps": 0.1,
        "train_sampling_strategy": "group_by_length",
        "overwrite_output_dir": True,
        "use_cpu": True,
    }


@pytest.mark.parametrize(
    ("text", "argv", "message"),
    [
        (
            "training_args = dict(lerning_rate=1)",
            [],
            "training_args has no 'lerning_rate'; did you mean 'learning_rate'",
        ),
        (
            "training_args = dict(learning_rate='1e-3')",
            [],
            "training_args.learning_rate: expected a number, got '1e-3'",
        ),
        ("training_args = dict(do_train='yes')", [], "training_args.do_train: expected true or false"),
        ("training_args = dict(seed=1.5)", [], "training_args.seed: expected a whole number"),
        ("training_args = dict(output_dir='o')", [], "nothing to do: give one of --do_train"),
        ("training_args = dict(do_train=True)", [], "output_dir is not set"),
        ("training_args = dict(do_train=True)", ["--output_dir", "o", "--eval_strategy", "epochs"], "epochs"),
        (
            "training_args = dict(do_train=True)",
            ["--output_dir", "o", "--train_sampling_strategy", "random_"],
            "did you mean 'random'",
        ),
        ("training_args = dict(do_train=True)", ["--output_dir", "o", "--remove_unused_columns"], "must be false"),
    ],
)
def test_a_wrong_argument_is_one_sentence(workspace, registered, text, argv, message):
    workspace("a.py", text + "\nmodel_args = dict(type='ThrowawayModel')")
    with pytest.raises(ConfigError, match=message) as caught:
        prepare_args(["a.py", *argv])
    assert "\n" not in str(caught.value)
    assert os.listdir() == ["a.py"]


def test_a_run_without_model_or_config_is_an_error(workspace):
    workspace("a.py", "training_args = dict(do_train=True, output_dir='o')")
    with pytest.raises(ConfigError, match="model_args is not set"):
        prepare_args(["a"])
    with pytest.raises(ConfigError, match="no config on the command line"):
        prepare_args(["--do_train"])
    with pytest.raises(ConfigError, match="--resume_from_checkpoint took 'a'"):
        prepare_args(["--resume_from_checkpoint", "a"])


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
@pytest.mark.parametrize(
    ("flag", "message"), [("bf16", "--bf16 false, or --use_cpu"), ("tf32", "tf32"), ("fp16", "fp16")]
)
def test_settings_for_a_gpu_are_one_sentence_without_one(flag, message):
    with pytest.raises(ConfigError, match=message):
        build_arguments({"output_dir": "o", flag: True})


def test_group_by_modality_length_is_accepted():
    arguments = build_arguments(
        {"output_dir": "o", "use_cpu": True, "train_sampling_strategy": "group_by_modality_length"}
    )
    assert arguments.train_sampling_strategy == "group_by_modality_length"


def test_an_evaluation_strategy_does_not_ask_for_evaluation_without_training():
    values = {"output_dir": "o", "use_cpu": True, "eval_strategy": "epoch"}
    assert build_arguments({**values, "do_train": True}).do_eval is True
    assert build_arguments({**values, "do_predict": True}).do_eval is False


def test_several_processes_that_would_run_alone_are_refused(leaf, monkeypatch):
    class Alone:
        world_size = 1

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("mllm.config.arguments.build_arguments", lambda values: Alone())
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=2.*accelerate launch --multi_gpu --num_processes 2 .*--use_cpu"):
        prepare_args(["leaf"])
    Alone.world_size = 2
    assert prepare_args(["leaf"])[1].world_size == 2


def checkpoint(workspace, step, *, incomplete=False):
    workspace(f"out/checkpoint-{step}/trainer_state.json", "{}")
    if incomplete:
        workspace(f"out/checkpoint-{step}/checkpoint-is-incomplete.txt", "")


def test_a_folder_in_use_is_refused_and_nothing_is_deleted(leaf, workspace):
    workspace("out/old.txt", "a launcher's log does not count")
    prepare_args(["leaf"])
    workspace("out/config.py", "")
    with pytest.raises(ConfigError, match=r"'out' is not empty \(it holds 'config.py'\).*--resume_from_checkpoint"):
        prepare_args(["leaf"])
    prepare_args(["leaf", "--overwrite_output_dir"])
    prepare_args(["leaf", "--no_do_train", "--do_predict"])
    assert sorted(os.listdir("out")) == ["config.py", "old.txt"]


def test_rank_zero_alone_judges_the_folder(leaf, workspace, monkeypatch):
    workspace("out/config.py", "")
    monkeypatch.setenv("RANK", "1")
    prepare_args(["leaf"])


def test_resuming_takes_the_last_complete_checkpoint(leaf, workspace):
    for step in (5, 10, 9):
        checkpoint(workspace, step)
    checkpoint(workspace, 20, incomplete=True)
    (workspace("out/checkpoint-30/x", "").parent).joinpath("model.safetensors").touch()
    assert last_checkpoint("out").name == "checkpoint-10"
    assert prepare_args(["leaf", "--resume_from_checkpoint"])[1].resume_from_checkpoint == "out/checkpoint-10"
    assert prepare_args(["leaf", "--resume_from_checkpoint", "auto"])[1].resume_from_checkpoint == "out/checkpoint-10"
    given = prepare_args(["leaf", "--resume_from_checkpoint", "out/checkpoint-5"])[1]
    assert given.resume_from_checkpoint == "out/checkpoint-5"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "no complete checkpoint in output_dir 'out'"),
        (["elsewhere"], "'elsewhere': no such folder"),
        (["out/checkpoint-20"], "it holds checkpoint-is-incomplete.txt"),
        (["config"], "it has no trainer_state.json"),
    ],
)
def test_a_missing_checkpoint_is_an_error(leaf, workspace, value, message):
    checkpoint(workspace, 20, incomplete=True)
    with pytest.raises(CheckpointError, match=message):
        prepare_args(["leaf", "--resume_from_checkpoint", *value])


def test_auto_starts_afresh_where_there_is_no_checkpoint(leaf):
    assert prepare_args(["leaf", "--resume_from_checkpoint", "auto"])[1].resume_from_checkpoint is None


def test_help_names_our_own_flags(workspace, capsys):
    with pytest.raises(SystemExit) as caught:
        resolve(["--help"])
    assert caught.value.code == 0
    assert "--do_multi_predict" in capsys.readouterr().out
