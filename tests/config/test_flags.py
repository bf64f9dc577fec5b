"""Flags of the command line: every field, booleans three ways, old names, no abbreviations."""

import dataclasses

import pytest

from mllm.config.arguments import Seq2SeqArguments
from mllm.config.flags import FlagTable, split_command_line
from mllm.config.renamed import old_flags, translate
from mllm.errors import ConfigError
from mllm.utils.program import UsageError

NAMES = {one.name for one in dataclasses.fields(Seq2SeqArguments)}
TABLE = FlagTable(dataclasses.fields(Seq2SeqArguments), old_flags(NAMES))


def read(*words):
    line = split_command_line(words, TABLE.takes)
    return dict(TABLE.convert(name, given) for name, given in line.flags.items())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--do_train"], {"do_train": True}),
        (["--do_train", "false"], {"do_train": False}),
        (["--do_train", "True"], {"do_train": True}),
        (["--do_train=0"], {"do_train": False}),
        (["--no_do_train"], {"do_train": False}),
        (["--no-do-train"], {"do_train": False}),
        (["--no_tf32"], {"tf32": False}),
        (["--max_steps", "-1"], {"max_steps": -1}),
        (["--num_train_epochs", "1"], {"num_train_epochs": 1.0}),
        (["--num-train-epochs=1e-1"], {"num_train_epochs": 0.1}),
        (["--eval_steps", "None"], {"eval_steps": None}),
        (["--mm_projector_lr", "2e-5"], {"mm_projector_lr": 2e-5}),
        (["--report_to", "none"], {"report_to": "none"}),
        (["--report_to", "tensorboard", "wandb"], {"report_to": ["tensorboard", "wandb"]}),
        (["--label_names", '["a", "b"]'], {"label_names": ["a", "b"]}),
        (["--fsdp"], {"fsdp": True}),
        (["--fsdp", "True"], {"fsdp": True}),
        (["--fsdp", "full_shard auto_wrap"], {"fsdp": "full_shard auto_wrap"}),
        (["--fsdp_config", '{"version": 2}'], {"fsdp_config": {"version": 2}}),
        (["--deepspeed", "zero2.json"], {"deepspeed": "zero2.json"}),
        (["--resume_from_checkpoint"], {"resume_from_checkpoint": True}),
        (["--resume_from_checkpoint", "out/checkpoint-3"], {"resume_from_checkpoint": "out/checkpoint-3"}),
        (["--lr_scheduler_kwargs", "{'a': 1}"], {"lr_scheduler_kwargs": {"a": 1}}),
        (["--seed", "1", "--seed", "2"], {"seed": 2}),
        (["--no_cuda"], {"no_cuda": True}),
        (["--warmup_ratio", "0.03"], {"warmup_ratio": 0.03}),
        (["--fsdp_transformer_layer_cls_to_wrap", "A", "B"], {"fsdp_transformer_layer_cls_to_wrap": ["A", "B"]}),
    ],
)
def test_flags_become_values_of_their_fields_type(words, expected):
    assert read(*words) == expected


def test_every_field_but_debug_is_a_flag():
    for name in NAMES - {"debug"}:
        assert TABLE.takes(name) in {"bool", "one", "many", "maybe"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bf16_full"], "did you mean '--bf16_full_eval'"),
        (["--lerning_rate", "1"], "did you mean '--learning_rate'"),
        (["--no_learning_rate"], "is no boolean flag"),
        (["--learning_rate"], "--learning_rate needs a value"),
        (["--learning_rate", "--do_train"], "--learning_rate needs a value"),
        (["--learning_rate", "big"], "--learning_rate: expected a number, got 'big'"),
        (["--max_steps", "1.5"], "--max_steps: expected a whole number, got '1.5'"),
        (["--do_train=maybe"], "--do_train: expected true or false"),
        (["--fsdp_config", "{1"], "expected a dict in JSON"),
        (["--report_to"], "--report_to needs a value"),
        (["--cfg-options", "--do_train"], "--cfg-options needs at least one"),
        (["-do_train"], "two dashes"),
        (["a.py", "b.py"], "two configs"),
        (["--debug=underflow_overflow"], "unknown flag --debug"),
    ],
)
def test_a_wrong_flag_is_a_usage_error(words, message):
    with pytest.raises(UsageError, match=message):
        read(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["x.py", "--do_train", "--cfg-options", "a.b=1", "+c.d=2", "--seed", "1"],
        ["--do_train", "x.py", "--seed", "1", "--cfg-options", "a.b=1", "+c.d=2"],
        ["--do_train", "--cfg-options", "a.b=1", "+c.d=2", "x.py", "--seed=1"],
        ["--seed", "1", "--do_train", "--cfg_options=a.b=1", "--cfg-options", "+c.d=2", "x.py"],
    ],
)
def test_the_config_may_stand_anywhere(words):
    line = split_command_line(words, TABLE.takes)
    assert line.config == "x.py"
    assert [(one.name, one.value, one.add) for one in line.options] == [("a.b", 1, False), ("c.d", 2, True)]
    assert line.flags == {"do_train": None, "seed": ["1"]}


def test_flags_with_optional_values_leave_a_config_file_alone():
    for words in (["--resume_from_checkpoint", "x.py"], ["--report_to", "none", "x.py"], ["--do_train", "leaf"]):
        assert split_command_line(words, TABLE.takes).config in {"x.py", "leaf"}


def test_debug_is_ours():
    line = split_command_line(["--debug", "x.py"], TABLE.takes)
    assert line.debug
    assert line.config == "x.py"


OLD = [
    ({"evaluation_strategy": "epoch"}, {"eval_strategy": "epoch"}),
    ({"warmup_ratio": 0.03}, {"warmup_steps": 0.03}),
    ({"warmup_ratio": 0.0}, {}),
    ({"warmup_ratio": 0.03, "warmup_steps": 0}, {"warmup_steps": 0.03}),
    ({"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}),
    ({"group_by_length": False}, {}),
    ({"group_by_modality_length": True}, {"train_sampling_strategy": "group_by_modality_length"}),
    (
        {"fsdp_transformer_layer_cls_to_wrap": "A", "fsdp_config": {"version": 2}},
        {"fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["A"]}},
    ),
    ({"save_safetensors": False}, {}),
    ({"logging_dir": "x"}, {}),
    ({"no_cuda": True}, {"use_cpu": True}),
    ({"per_gpu_train_batch_size": 4}, {"per_device_train_batch_size": 4}),
    ({"adafactor": True}, {"optim": "adafactor"}),
    ({"push_to_hub_token": "x"}, {"hub_token": "x"}),
]


@pytest.mark.parametrize(("old", "today"), OLD)
def test_old_names_are_translated_with_one_line_each(old, today, caplog):
    caplog.set_level("WARNING", "mllm")
    assert translate(old, NAMES, {}, "a.py") == today
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len([name for name in old if name not in NAMES])
    assert all(line.startswith("a.py: ") and " is now " in line for line in lines)


def test_old_names_of_a_layer_above_join_the_fsdp_config_below():
    below = {"fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["Old"]}}
    new = translate({"fsdp_transformer_layer_cls_to_wrap": ["A", "B"]}, NAMES, below, "command line")
    assert new == {"fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["A", "B"]}}
    assert below["fsdp_config"]["transformer_layer_cls_to_wrap"] == ["Old"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmup_ratio": 1.0}, "from 0 to below 1"),
        ({"evaluation_strategy": "no", "eval_strategy": "epoch"}, "say different things"),
        ({"fsdp_transformer_layer_cls_to_wrap": "A", "fsdp_config": "f.json"}, "write it into that file"),
    ],
)
def test_what_cannot_be_translated_is_an_error(values, message):
    with pytest.raises(ConfigError, match=message):
        translate(values, NAMES, {}, "a.py")


def test_a_name_that_transformers_still_has_is_not_translated():
    assert "overwrite_output_dir" not in old_flags(NAMES)
    assert not set(old_flags(NAMES)) & NAMES
    # transformers 5.17 has gradient_checkpointing alone, 5.23 has activation_checkpointing too.
    assert old_flags(NAMES - {"activation_checkpointing"})["activation_checkpointing"] == "bool"
