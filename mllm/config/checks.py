"""What is refused before anything is written: no task, no folder, a folder in use, a launch that did not launch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.errors import CheckpointError, ConfigError
from mllm.utils.checkpoint_folders import INCOMPLETE, is_complete, last_checkpoint
from mllm.utils.checkpoint_mirror import fetch_checkpoint, fetch_last_checkpoint
from mllm.utils.storage import is_remote

TASKS = ("do_train", "do_eval", "do_predict", "do_multi_predict")
# In output_dir while sets are predicted; a run that was killed leaves it.
UNFINISHED = "prediction_unfinished.json"
# What a launcher or a shell may have put there before the program starts.
_NOT_OURS = (".log", ".out", ".err", ".txt", ".sh")


def check_tasks(cfg: Mapping[str, Any], path: Path) -> None:
    """ConfigError if there is nothing to do, nothing to do it with, or nowhere to write."""
    values = cfg["training_args"]
    if not cfg.get("model_args"):
        raise ConfigError(f"{path}: model_args is not set; expected model_args = dict(type=..., ...)")
    if not any(values.get(task) for task in TASKS):
        flags = ", ".join(f"--{task}" for task in TASKS)
        raise ConfigError(f"nothing to do: give one of {flags}, or set it in training_args")
    if not values.get("output_dir"):
        raise ConfigError("output_dir is not set: give --output_dir DIR, or set it in training_args")


def check_output_folder(values: dict[str, Any]) -> None:
    """ConfigError if training would mix with an older run's files.

    For rank 0 alone, before the process group exists: nothing of this run can have been written by then.
    """
    folder = Path(str(values["output_dir"])).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output_dir {str(folder)!r} is a file")
    if not values.get("do_train") or values.get("resume_from_checkpoint") or values.get("overwrite_output_dir"):
        return
    found = sorted(one.name for one in folder.iterdir() if _counts(one)) if folder.is_dir() else []
    if UNFINISHED in found:
        raise ConfigError(
            f"output_dir {str(folder)!r} holds a trained model whose predictions are unfinished: go on with --do_train "
            f"false --do_eval false --cfg-options model_args.pretrained={str(folder)!r}, train anew with "
            "--overwrite_output_dir, or choose another --output_dir"
        )
    if found:
        raise ConfigError(
            f"output_dir {str(folder)!r} is not empty (it holds {found[0]!r}): continue that run with "
            "--resume_from_checkpoint, allow it with --overwrite_output_dir, or choose another --output_dir"
        )


def _counts(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix not in _NOT_OURS


def resolve_resume(values: dict[str, Any]) -> str | None:
    """The checkpoint to continue from; CheckpointError if it is missing or incomplete.

    ``True`` (the bare flag) and ``"last"`` mean the last one in ``output_dir``; ``"auto"`` the same, or a fresh start
    where there is none, as a job that is requeued wants it. With ``mirror_to`` one that is no longer in ``output_dir``
    is fetched from there, and an address in a store is fetched into ``output_dir``.
    """
    asked = values.get("resume_from_checkpoint")
    if asked in (None, False):
        return None
    folder = Path(str(values["output_dir"])).expanduser()
    if asked is True or asked in ("last", "auto", "true", "True"):
        found = last_checkpoint(folder)
        if found is None and values.get("mirror_to"):
            found = fetch_last_checkpoint(str(values["mirror_to"]), folder)
        if found is None and asked != "auto":
            raise CheckpointError(f"--resume_from_checkpoint: no complete checkpoint in output_dir {str(folder)!r}")
        return str(found) if found else None
    if is_remote(str(asked)):
        return str(fetch_checkpoint(str(asked), folder))
    path = Path(str(asked)).expanduser()
    if not path.is_dir():
        raise CheckpointError(f"--resume_from_checkpoint {str(path)!r}: no such folder")
    if not is_complete(path):
        why = f"it holds {INCOMPLETE}" if (path / INCOMPLETE).exists() else "it has no trainer_state.json"
        raise CheckpointError(f"--resume_from_checkpoint {str(path)!r}: not a complete checkpoint: {why}")
    return str(path)


def check_world(world_size: int) -> None:
    """ConfigError if the launcher started several processes but each trains alone."""
    launched = os.environ.get("WORLD_SIZE", "")
    if launched.isdigit() and int(launched) > 1 and world_size == 1:
        raise ConfigError(
            f"the launcher started {launched} processes (WORLD_SIZE={launched}) but each would run alone; on GPUs use "
            f"'accelerate launch --multi_gpu --num_processes {launched} ...', on CPU 'accelerate launch --multi_gpu "
            f"--num_processes {launched} mllm/pipeline/finetune.py CONFIG ... --use_cpu'"
        )
