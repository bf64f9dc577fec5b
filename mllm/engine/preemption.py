"""Stopping when the cluster asks: SIGTERM or SIGUSR1 saves a checkpoint at the next step and ends the run."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from mllm.errors import Preempted
from mllm.utils.logging import get_logger, log_on_main

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
logger = get_logger(__name__)


class StopOnSignal(TrainerCallback):
    """Ranks may hear of it at different moments: after every step they agree, so that all save the same step."""

    def __init__(self) -> None:
        self.heard = False
        self.stopped_at: int | None = None
        self._before: dict[int, Any] = {}
        self._group: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Listen until training ends."""
        atexit.unregister(_end_loaders)
        atexit.register(_end_loaders)
        self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        if args.world_size > 1 and torch.distributed.get_backend() != "gloo":
            # On the CPU's side: asking the GPU after every step would make the host wait for it.
            self._group = torch.distributed.new_group(backend="gloo")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop as soon as one rank has heard the signal; there is no time to evaluate."""
        if self.stopped_at is None and self._one_has_heard(args.world_size):
            self.stopped_at = state.global_step
            log_on_main(logger, "asked to stop: saving a checkpoint at step %d", state.global_step)
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An epoch that ends only because the run stops is neither evaluated nor saved again."""
        if self.stopped_at is not None:
            control.should_evaluate = control.should_save = False

    def stop_listening(self) -> None:
        """Signals mean again what they meant before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def raise_if_stopped(self, folder: str, steps: int) -> None:
        """Preempted, if the run was asked to stop before its last step."""
        if self.stopped_at is not None and self.stopped_at < steps:
            raise Preempted(
                f"stopped by a signal at step {self.stopped_at} of {steps}, saved in {folder}/checkpoint-"
                f"{self.stopped_at}; the same command with --resume_from_checkpoint auto goes on from there"
            )

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.heard = True

    def _one_has_heard(self, world_size: int) -> bool:
        if world_size == 1:
            return self.heard
        heard = torch.tensor(int(self.heard))
        torch.distributed.all_reduce(heard, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(heard)


def _end_loaders() -> None:
    """End the processes that load data: they do not hear the SIGTERM by which Python would end, and wait for, them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise for each that ends
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
