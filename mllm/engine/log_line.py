"""The log as lines that a person reads, in place of the dicts that transformers prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from mllm.utils.logging import get_logger

logger = get_logger("train")
_PARTS = ("eval", "test", "multitest")
_FIRST = ("loss", "train_loss", "learning_rate", "grad_norm")


class LogLine(TrainerCallback):
    """One line of the program's log for each row: loss and figures, scores of an evaluation, the end of training."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Write the row on the main process, above the progress bar if there is one."""
        if state.is_world_process_zero and logs:
            with tqdm.external_write_mode():
                logger.info("%s", line(logs, state.global_step, state.max_steps))


class _BarAlone(ProgressCallback):
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        pass


def write_lines(trainer: Any) -> None:
    """Let ``trainer`` log in lines; its progress bar stays, without the dicts that it prints."""
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_BarAlone)
    trainer.pop_callback(PrinterCallback)
    trainer.add_callback(LogLine)


def line(logs: Mapping[str, Any], step: int, last_step: int, now: datetime | None = None) -> str:
    """``step 120/650  loss 1.234  lr 2e-4  …`` of a row of the log; ``now`` is what the time left is added to."""
    rest = {name: value for name, value in logs.items() if _is_number(value)}
    rest.pop("epoch", None)
    rest.pop("total_flos", None)
    words = [f"step {step}/{last_step}"] if last_step > 0 else []
    if "train_runtime" in rest:
        words.append(f"training took {_duration(rest.pop('train_runtime'))}")
        rest.pop("train_steps_per_second", None)
    part = next((one for one in _PARTS if any(name.startswith(one + "_") for name in rest)), None)
    words += [part] if part else []
    left = rest.pop("eta_seconds", None)
    ordered = {name: rest.pop(name) for name in _FIRST if name in rest}
    for name, value in (ordered | rest).items():
        label, write = _FORMS.get(name.removeprefix(f"{part}_"), (name.removeprefix(f"{part}_"), _plain))
        words.append(write(value) if label is None else f"{label} {write(value)}")
    if left and step < last_step:
        words.append(f"done ~{_moment(now or datetime.now(), left)}")
    return "  ".join(words)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _rate(value: float) -> str:
    """``2e-4``, ``1.85e-5``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits, power = f"{value:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _short(value: float) -> str:
    """``0.42``, ``9.6``, ``120``, ``3.1k``, ``2.4M``: as much as a glance takes in."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")):
        if value >= size:
            return f"{value / size:.{0 if value >= 10 * size else 1}f}{unit}"
    return f"{value:.2g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s"


def _moment(now: datetime, seconds: float) -> str:
    """The local time ``seconds`` from ``now``: ``17:42``, with the day where it is another one."""
    end = now + timedelta(seconds=seconds)
    if end.date() == now.date():
        return f"{end:%H:%M}"
    return f"{end:%a %H:%M}" if end - now < timedelta(days=6) else f"{end:%Y-%m-%d}"


_SPEED = (None, lambda value: f"{_short(value)} samples/s")
_FORMS: Mapping[str, tuple[str | None, Any]] = {
    "loss": ("loss", _plain),
    "train_loss": ("loss", _plain),
    "learning_rate": ("lr", _rate),
    "grad_norm": ("grad", lambda value: f"{value:.3g}"),
    "tokens_per_second": (None, lambda value: f"{_short(value)} tok/s"),
    "samples_per_second": _SPEED,
    "train_samples_per_second": _SPEED,
    "data_wait": ("data", lambda value: f"{100 * value:.0f} %"),
    "memory_gb": ("mem", lambda value: f"{_short(value)} GB"),
    "runtime": ("in", _duration),
}
