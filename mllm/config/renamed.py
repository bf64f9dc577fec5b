"""Names that older configs and command lines use, translated to today's with one line in the log each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from mllm.errors import ConfigError
from mllm.utils.logging import get_logger, log_on_main

_logger = get_logger(__name__)

# old name: (today's name, how many words it takes as a flag)
_RENAMED = {
    "evaluation_strategy": ("eval_strategy", "one"),
    "no_cuda": ("use_cpu", "bool"),
    "per_gpu_train_batch_size": ("per_device_train_batch_size", "one"),
    "per_gpu_eval_batch_size": ("per_device_eval_batch_size", "one"),
    "push_to_hub_token": ("hub_token", "one"),
    "push_to_hub_model_id": ("hub_model_id", "one"),
    "torchdynamo": ("torch_compile_backend", "one"),
    "xpu_backend": ("ddp_backend", "one"),
    "activation_checkpointing": ("gradient_checkpointing", "bool"),
    "activation_checkpointing_kwargs": ("gradient_checkpointing_kwargs", "one"),
    "gradient_checkpointing": ("activation_checkpointing", "bool"),
    "gradient_checkpointing_kwargs": ("activation_checkpointing_kwargs", "one"),
}
# old name: (why nothing takes its place, how many words)
_DROPPED = {
    "save_safetensors": ("weights are always written as safetensors", "bool"),
    "logging_dir": ("TensorBoard writes to output_dir/runs; the variable TENSORBOARD_LOGGING_DIR moves it", "one"),
    "fp16_backend": ("there is one backend", "one"),
    "half_precision_backend": ("there is one backend", "one"),
    "fp16_opt_level": ("apex is not used", "one"),
    "use_mps_device": ("the device is found by itself", "bool"),
    "use_ipex": ("gone from transformers", "bool"),
    "jit_mode_eval": ("gone from transformers", "bool"),
    "past_index": ("gone from transformers", "one"),
    "mp_parameters": ("gone from transformers", "one"),
    "ray_scope": ("gone from transformers", "one"),
    "tpu_num_cores": ("gone from transformers", "one"),
    "tpu_metrics_debug": ("gone from transformers", "bool"),
}


def _warmup_ratio(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ConfigError(f"warmup_ratio: expected a number from 0 to below 1, got {value!r}")
    return {"warmup_steps": float(value)} if value else {}


def _sampling(strategy: str) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    return lambda value, _: {"train_sampling_strategy": strategy} if value else {}


def _fsdp(key: str) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    def translate(value: Any, current: Mapping[str, Any]) -> dict[str, Any]:
        config = current.get("fsdp_config") or {}
        if not isinstance(config, Mapping):
            raise ConfigError(f"fsdp_{key} was given beside the file fsdp_config={config!r}: write it into that file")
        parts = [value] if isinstance(value, str) and key.startswith("transformer") else value
        return {"fsdp_config": {**config, key: parts}}

    return translate


# old name: (today's wording, how many words, translation of (value, arguments so far) to today's arguments)
_COMPUTED = {
    "warmup_ratio": ("warmup_steps (below 1 it is a ratio)", "one", _warmup_ratio),
    "group_by_length": ("train_sampling_strategy='group_by_length'", "bool", _sampling("group_by_length")),
    "group_by_modality_length": (
        "train_sampling_strategy='group_by_modality_length'",
        "bool",
        _sampling("group_by_modality_length"),
    ),
    "fsdp_transformer_layer_cls_to_wrap": (
        "fsdp_config=dict(transformer_layer_cls_to_wrap=[...])",
        "many",
        _fsdp("transformer_layer_cls_to_wrap"),
    ),
    "fsdp_min_num_params": ("fsdp_config=dict(min_num_params=...)", "one", _fsdp("min_num_params")),
    "adafactor": ("optim='adafactor'", "bool", lambda value, _: {"optim": "adafactor"} if value else {}),
    "include_inputs_for_metrics": (
        "include_for_metrics=['inputs']",
        "bool",
        lambda value, _: {"include_for_metrics": ["inputs"]} if value else {},
    ),
}


def old_flags(field_names: Collection[str]) -> dict[str, str]:
    """Old names that are no field of the installed transformers, and how many words each takes as a flag."""
    table = {name: kind for name, (today, kind) in _RENAMED.items() if today in field_names}
    table |= {name: kind for name, (_, kind) in _DROPPED.items()}
    table |= {name: kind for name, (_, kind, _) in _COMPUTED.items()}
    return {name: kind for name, kind in table.items() if name not in field_names}


def translate(
    values: Mapping[str, Any], field_names: Collection[str], current: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """``values`` under today's names, one line in the log for each old one.

    ``current`` are the arguments that the layers below have set; ``where`` names the layer in the log.
    """
    old = old_flags(field_names)
    translated = {name: value for name, value in values.items() if name not in old}
    for name, value in values.items():
        if name not in old:
            continue
        new, today = _one(name, value, {**current, **translated})
        for key, one in new.items():
            if key != "fsdp_config" and values.get(key) and values[key] != one:
                raise ConfigError(f"{where}: {name}={value!r} and {key}={values[key]!r} say different things")
            translated[key] = one
        log_on_main(_logger, "%s: %s is now %s", where, name, today)
    return translated


def _one(name: str, value: Any, current: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    if name in _RENAMED:
        today = _RENAMED[name][0]
        return {today: value}, today
    if name in _DROPPED:
        return {}, f"without effect: {_DROPPED[name][0]}"
    today, _, compute = _COMPUTED[name]
    return compute(value, current), today
