"""A sweep: trials proposed, run, stopped early where they are hopeless, and told apart by one metric."""

from __future__ import annotations

import fcntl
import json
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.errors import ConfigError
from mllm.pipeline.cluster.arrays import Task, names_of, words_of
from mllm.pipeline.cluster.jobs import Line, make_task
from mllm.pipeline.cluster.runners import Runner
from mllm.pipeline.cluster.trials import Trial, TrialLog, best_of, curve, final_value, is_hopeless, plain, why_failed
from mllm.utils.files import atomic_write, read_json


@dataclass(frozen=True)
class Goal:
    """What is looked for. A trial is stopped early once ``prune_after`` others have come as far and did better."""

    metric: str
    maximize: bool
    trials: int
    parallel: int
    prune_after: int


class Sweep:
    """``run`` goes on until every trial has ended. What has been done before in ``folder`` is not done again."""

    def __init__(
        self, name: str, folder: Path, line: Line, goal: Goal, sampler: Any, runner: Runner, tell: Callable[[str], None]
    ) -> None:
        self.name, self.folder, self.line, self.goal = name, folder, line, goal
        self.sampler, self.runner, self.tell = sampler, runner, tell
        self.log = TrialLog(folder)
        self.trials = self.log.read()
        self.ended_at: dict[int, float] = {}

    def run(self) -> Trial:
        """The best trial; ConfigError if none has come to its end. Ctrl-C lets running trials save, or go on queued."""
        self._take_up()
        try:
            while True:
                self._look()
                self._start()
                if not self._in("running"):
                    break
                time.sleep(self.runner.poll)
        except KeyboardInterrupt:
            self.tell(f"stopped: {self.runner.leave(self._in('running'))}; the same command goes on with the sweep")
            raise
        return self._finish()

    def _in(self, *states: str) -> list[Trial]:
        return [trial for trial in self.trials if trial.state in states]

    def task(self, trial: Trial) -> Task:
        """The run of a trial."""
        return make_task(self.line, self.name, trial.name, trial.values, str(self.folder))

    def _take_up(self) -> None:
        """After an interruption: what still runs is followed, what has ended without a result starts again."""
        alive = self.runner.alive(self._in("running"))
        for trial in self._in("running"):
            if trial.number not in alive and self._value(trial) is None:
                self._set(trial, "waiting")
        if done := self._in("finished", "pruned", "failed"):
            self.tell(f"{self.folder}: {len(done)} trials have ended before; they are not run again")

    def _look(self) -> None:
        alive = self.runner.alive(self._in("running"))
        for trial in self._in("running"):
            trial.curve = curve(Path(self.task(trial).folder), self.goal.metric) or trial.curve
            if trial.number in alive:
                self._stop_if_hopeless(trial)
            else:
                self._settle(trial)

    def _stop_if_hopeless(self, trial: Trial) -> None:
        others = [other.curve for other in self.trials if other is not trial and other.state != "failed"]
        if not is_hopeless(trial.curve, others, self.goal.prune_after, self.goal.maximize):
            return
        if self._value(trial) is None:  # else it has all but ended
            self.runner.stop(trial)
            step = max(trial.curve)
            self._set(
                trial,
                "pruned",
                reason=f"{plain(trial.curve[step])} at step {step} is worse than the median of the others",
            )

    def _settle(self, trial: Trial) -> None:
        value = self._value(trial)
        if value is not None and math.isfinite(value):
            self._set(trial, "finished", value=value)
            return
        # Another machine's files may be seen here only after a while.
        if (
            value is None
            and time.monotonic() - self.ended_at.setdefault(trial.number, time.monotonic()) < self.runner.lag
        ):
            return
        reason = (
            why_failed(self.runner.log(trial, self.task(trial))) if value is None else f"{self.goal.metric} is {value}"
        )
        self._set(trial, "failed", reason=reason)

    def _value(self, trial: Trial) -> float | None:
        return final_value(Path(self.task(trial).folder), self.goal.metric)

    def _set(self, trial: Trial, state: str, *, value: float | None = None, reason: str = "") -> None:
        trial.state, trial.value, trial.reason = state, value, reason
        self.log.write(trial)
        if state != "waiting":
            self.tell(self._line(trial))

    def _line(self, trial: Trial) -> str:
        what = f"trial {trial.number}  {_values(trial)}: {trial.state}"
        if trial.state == "finished":
            best = best_of(self.trials, self.goal.maximize)
            return f"{what}, {self.goal.metric} {plain(trial.value)} (best {plain(best.value)}, trial {best.number})"
        return f"{what}: {trial.reason}" if trial.reason else what

    def _start(self) -> None:
        """Fill the free places; a queue gets all at once unless the sampler learns from what has ended."""
        room = max(self.goal.parallel - len(self._in("running")), 0)
        if self.runner.queues and not self.sampler.learns:
            room = self.goal.trials
        batch = self._in("waiting")[:room]
        while len(batch) < room and len(self.trials) < self.goal.trials:
            number = len(self.trials)
            values = self.sampler.propose(number, self.trials)
            self.trials.append(Trial(number, values, f"{number}-{names_of([values])[0]}"))
            batch.append(self.trials[-1])
        if not batch:
            return
        self.runner.start(batch, [self.task(trial) for trial in batch])
        for trial in batch:
            self._set(trial, "running")

    def _finish(self) -> Trial:
        best = best_of(self.trials, self.goal.maximize)
        failed = self._in("failed")
        if best is None:
            why = f"; trial {failed[0].number}: {failed[0].reason}" if failed else ""
            raise ConfigError(f"{self.folder}: none of {len(self.trials)} trials has come to its end{why}")
        task = self.task(best)
        words = [*self.line.words, *words_of(best.values), "--output_dir", f"{self.folder}_best"]
        found = {"trial": best.number, "metric": self.goal.metric, "value": best.value, "values": best.values}
        found |= {"folder": task.folder, "command": shlex.join(["mllm", "train", task.config, *words])}
        atomic_write(self.folder / "best.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        return best


def _values(trial: Trial) -> str:
    return " ".join(f"{key}={value}" for key, value in trial.values.items())


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder for one sweep; ConfigError if another process does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".sweep.lock", "w")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}; choose another --name") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another mllm sweep is at work here; stop it, or choose another --name"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def check_same(folder: Path, definition: dict[str, Any]) -> None:
    """Keep what the sweep is about; ConfigError if the folder holds another one."""
    path = folder / "sweep.json"
    if path.is_file():
        before = read_json(path)
        for key, value in definition.items():
            if before.get(key) != value:
                raise ConfigError(
                    f"{folder} holds a sweep with {key} {_short(before.get(key))}, now it is {_short(value)}: repeat "
                    "what it was to go on, or choose another --name"
                )
    elif folder.is_dir() and any(not one.name.startswith(".") for one in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no sweep: choose another --name")
    atomic_write(path, json.dumps(definition, indent=2, ensure_ascii=False) + "\n")


def _short(value: Any) -> str:
    return " ".join(value) or "none" if isinstance(value, list) else str(value)


def ended(trials: Sequence[Trial]) -> str:
    """``5 trials: 3 finished, 1 pruned, 1 failed``."""
    counts = {state: sum(trial.state == state for trial in trials) for state in ("finished", "pruned", "failed")}
    return f"{len(trials)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)
