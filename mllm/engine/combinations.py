"""What an engine cannot do with what a config asks for, said before anything is loaded."""

from __future__ import annotations

import os
from typing import Any

from mllm.errors import ConfigError


def check_combination(args: Any, tuning: Any) -> None:
    """ConfigError for a launch that would fail, or save nothing that is of use, once training has begun."""
    uses_fsdp = _is_set("ACCELERATE_USE_FSDP") or bool(args.fsdp)
    settings = _deepspeed_settings(args)
    stage = None if settings is None else settings.get("zero_optimization", {}).get("stage", 0)
    if tuning is not None and tuning.quantize is not None and (uses_fsdp or stage == 3):
        engine = "FSDP" if uses_fsdp else "ZeRO 3"
        raise ConfigError(
            f"tune.quantize={tuning.quantize!r} under {engine}: packed weights cannot be split; quantised models fit "
            "each GPU: launch with accelerate_config/ddp.yaml, or with zero2.yaml"
        )
    if uses_fsdp:
        _check_fsdp(args)
    if (uses_fsdp or settings is not None) and args.muon_lr is not None:
        raise ConfigError("muon_lr needs whole matrices: take DDP, or drop muon_lr under FSDP and DeepSpeed")
    gathers = stage != 3 or settings["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save")
    if not gathers and (args.do_train or args.save_strategy != "no"):
        raise ConfigError(
            "ZeRO 3 without stage3_gather_16bit_weights_on_model_save: checkpoints would hold no weights; set it in "
            "DeepSpeed's file, or zero3_save_16bit_model in accelerate's"
        )


def _check_fsdp(args: Any) -> None:
    config = args.fsdp_config or {}
    version = str(config.get("version", os.environ.get("FSDP_VERSION", "2")))
    if version != "2":
        raise ConfigError(f"FSDP {version} is gone from transformers: set fsdp_version: 2 (fsdp_config['version'] = 2)")


def _deepspeed_settings(args: Any) -> dict[str, Any] | None:
    plugin = getattr(args, "deepspeed_plugin", None)
    return None if plugin is None else plugin.hf_ds_config.config


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
