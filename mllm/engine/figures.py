"""Figures of the machine beside each logged loss: throughput, waiting for data, memory, the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

FIGURES = ("tokens_per_second", "samples_per_second", "data_wait", "memory_gb", "eta_seconds")


class Figures:
    """What one process counts between two rows of the log; nothing here waits for the device before a row is made.

    Time counts while the clock runs: evaluation, saving and sample pages stand outside of it.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin anew: a resumed run counts from its own first batch."""
        self._since: float | None = None
        self._begin: float | None = None
        self.first_step, self.row_step = 0, -1
        self._clear()

    def _clear(self) -> None:
        self._worked = self._waited = 0.0
        self._tokens: Any = 0
        self._samples = 0

    @property
    def runs(self) -> bool:
        """Whether time counts now."""
        return self._since is not None

    def resume(self) -> None:
        """Let time count from now on, if it does not already."""
        if self._since is None:
            self._since = self.clock()
            self._begin = self._since if self._begin is None else self._begin

    def pause(self) -> None:
        """Let no time count until `resume`."""
        if self._since is not None:
            self._worked += self.clock() - self._since
            self._since = None

    def waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """``batches`` as they are, the time until each one counted as waiting; none is fetched ahead."""
        while True:
            start = self.clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._waited += self.clock() - start
            yield batch

    def count(self, batches: Sequence[Any]) -> None:
        """Count samples, and tokens that are no padding; sums stay on the device."""
        for batch in batches:
            ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
            if ids is not None:
                attention_mask = batch.get("attention_mask")
                self._tokens = self._tokens + (ids.numel() if attention_mask is None else attention_mask.sum())
                self._samples += len(ids)

    def row(self, step: int, last_step: int, accelerator: Any) -> dict[str, float]:
        """The figures since the row before, of all processes together: each of them has to call it. Ends in a pause."""
        self.pause()
        numbers = [float(self._tokens), self._samples, self._worked, self._waited, memory_gb(accelerator.device)]
        mine = torch.tensor([numbers], dtype=torch.float32, device=accelerator.device)
        tokens, samples, worked, waited, memory = accelerator.gather(mine).cpu().double().unbind(dim=1)
        seconds = max(worked.max().item(), 1e-9)
        done = step - self.first_step
        elapsed = self.clock() - (self._begin if self._begin is not None else self.clock())
        self._clear()
        self.row_step = step
        return {
            "tokens_per_second": round(tokens.sum().item() / seconds, 2),
            "samples_per_second": round(samples.sum().item() / seconds, 3),
            # The others wait at the next exchange for the process that waited longest for its data.
            "data_wait": round(min(waited.max().item() / seconds, 1.0), 4),
            "memory_gb": round(memory.max().item(), 3),
            "eta_seconds": round(max(last_step - step, 0) * elapsed / done, 1) if done > 0 else 0.0,
        }


def memory_gb(device: torch.device) -> float:
    """Peak of what torch has taken of a GPU, in 10⁹ bytes; on a CPU what the process holds of the memory now."""
    module = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "max_memory_allocated"):
        return module.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


class _StepDone(TrainerCallback):
    """Stands first: what other callbacks do at the end of a step, such as sample pages, is no training."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.figures.restart()
        self.figures.first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.figures.pause()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.figures.pause()


class Measured:
    """Stands before a Trainer: every row with a loss gets `FIGURES`. Hooks as of transformers 5.17 to 5.23."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.figures = Figures()
        self.callback_handler.callbacks.insert(0, _StepDone(self.figures))

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The batches of one optimiser step."""
        self.figures.resume()
        batches, count = super().get_batch_samples(self.figures.waiting(epoch_iterator), num_batches, device)
        self.figures.count(batches)
        return batches, count

    def _maybe_log_save_evaluate(self, *args: Any, **options: Any) -> None:
        # A row first waits for the device: that is training. Evaluating and saving, which follow, are not.
        if self.control.should_log and self.state.global_step > self.figures.row_step:
            self.figures.resume()
        super()._maybe_log_save_evaluate(*args, **options)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Hand a row to the log's history, its line and the trackers."""
        if "loss" in logs and self.figures.runs:
            logs |= self.figures.row(self.state.global_step, self.state.max_steps, self.accelerator)
        super().log(logs, start_time)
