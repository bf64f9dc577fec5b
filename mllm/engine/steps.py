"""The steps of training, and what ends them before their time in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from mllm.engine.saving import full_disk
from mllm.errors import UserError
from mllm.utils.checkpoint_folders import last_checkpoint

# What gloo and NCCL say when another rank is gone (torch 2.6 to 2.13).
_PEER_GONE = re.compile(
    r"Connection closed by peer|Connection reset by peer|Broken pipe|NCCL error|remote process exited|Socket Timeout"
    r"|Timed out waiting|watchdog",
    re.IGNORECASE,
)
_WORKER_GONE = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (is killed by signal: (\w+)|exited unexpectedly)")


class RunBroken(UserError):
    """Something outside of the program has ended the training."""


def run_steps(trainer: Any, checkpoint: str | None) -> Any:
    """``trainer.train``; a signal, a dead worker or rank, and a full disk become errors that say how to go on."""
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint)
    except (RuntimeError, OSError) as error:
        why = _cause(error)
        if why is None:
            raise
        raise RunBroken(f"{why}; {_way_on(trainer)}") from error
    trainer.stop_on_signal.raise_if_stopped(trainer.args.output_dir, trainer.state.max_steps)
    return result


def _cause(error: BaseException) -> str | None:
    text = str(error)
    worker = _WORKER_GONE.search(text)
    if worker:
        how = f"was killed ({worker.group(2)})" if worker.group(2) else "has died"
        return f"a process that loads data {how}, often for want of memory: lower dataloader_num_workers"
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "the GPU's memory is used up: lower per_device_train_batch_size and raise gradient_accumulation_steps, or "
            "set gradient_checkpointing"
        )
    if _is_distributed() and _PEER_GONE.search(text):
        return "another process of this run has died (its own message, if it had time for one, stands above)"
    full = full_disk(error)
    return f"output_dir cannot be written: {full}" if full else None


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _way_on(trainer: Any) -> str:
    found = last_checkpoint(Path(trainer.args.output_dir))
    step = trainer.state.global_step
    if found is None:
        return f"it happened at step {step}, before the first checkpoint: start again (save_steps sets how often)"
    return f"it happened at step {step}; --resume_from_checkpoint auto goes on from {found}"
