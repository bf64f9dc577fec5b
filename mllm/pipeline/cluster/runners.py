"""Where the trials of a sweep run: processes of this machine, or tasks of Slurm arrays."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psutil

from mllm.errors import ConfigError
from mllm.pipeline.cluster import clusters
from mllm.pipeline.cluster.arrays import Task
from mllm.pipeline.cluster.jobs import Job
from mllm.pipeline.cluster.machines import visible_gpus
from mllm.pipeline.cluster.scripts import write_script
from mllm.pipeline.cluster.trials import Trial
from mllm.utils.files import atomic_write

# Looks at the queue that may fail one after the other.
MOST_SILENT = 60


class Runner(Protocol):
    """What a sweep needs of a place: ``queues`` tells that it takes any number of trials and runs some at a time.

    ``poll`` is the time between two looks, ``lag`` how long files may take to be seen here once a trial has ended.
    """

    poll: float
    lag: float
    queues: bool

    def start(self, trials: Sequence[Trial], tasks: Sequence[Task]) -> None:
        """Begin trials; sets their ``job``."""

    def alive(self, trials: Sequence[Trial]) -> set[int]:
        """Numbers of those that wait or run."""

    def stop(self, trial: Trial) -> None:
        """End a trial without saving."""

    def leave(self, trials: Sequence[Trial]) -> str:
        """The sweep itself is stopped: what becomes of its trials, in words."""

    def log(self, trial: Trial, task: Task) -> Path:
        """Where a trial writes what it says."""


class Local:
    """``bash`` on a script each; with GPUs every trial has its own."""

    poll, lag, queues = 0.5, 0.0, False

    def __init__(self, job: Job, parallel: int, command: Sequence[str]) -> None:
        self.job, self.command = job, command
        share = job.machines.gpus
        gpus = visible_gpus()
        self.slots: dict[int, str | None] = {
            slot: ",".join(gpus[slot * share : (slot + 1) * share]) if share else None for slot in range(parallel)
        }
        self.taken: dict[int, int] = {}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, trials: Sequence[Trial], tasks: Sequence[Task]) -> None:
        """Begin trials, each in a session of its own."""
        for trial, task in zip(trials, tasks, strict=True):
            script = Path(task.folder) / "trial.sh"
            job = dataclasses.replace(self.job, tasks=(task,), array=True)
            atomic_write(script, write_script(job, "local", self.command))
            slot = min(set(self.slots) - set(self.taken.values()))
            gpus = self.slots[slot]
            environment = os.environ if gpus is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpus}
            with open(self.log(trial, task), "ab") as log:
                self.processes[trial.number] = subprocess.Popen(
                    ["bash", str(script)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment,
                )
            self.taken[trial.number] = slot
            trial.job = str(self.processes[trial.number].pid)

    def alive(self, trials: Sequence[Trial]) -> set[int]:
        """Own processes, and those that an earlier sweep has left."""
        found = {trial.number for trial in trials if self._is_alive(trial)}
        for trial in trials:
            if trial.number in found and trial.number not in self.taken:
                self.taken[trial.number] = min(set(self.slots) - set(self.taken.values()), default=-1)
            elif trial.number not in found:
                self.taken.pop(trial.number, None)
        return found

    def _is_alive(self, trial: Trial) -> bool:
        if trial.number in self.processes:
            return self.processes[trial.number].poll() is None
        try:
            words = psutil.Process(int(trial.job)).cmdline() if trial.job.isdigit() else []
        except psutil.Error:
            return False
        return any(f"/{trial.name}/" in word for word in words)

    def stop(self, trial: Trial) -> None:
        """Kill a trial with all its processes; launchers start sessions of their own."""
        try:
            script = psutil.Process(int(trial.job))
            for one in [script, *script.children(recursive=True)]:
                one.kill()
        except psutil.NoSuchProcess:
            pass  # it has just ended
        if trial.number in self.processes:
            self.processes[trial.number].wait()
        self.taken.pop(trial.number, None)

    def leave(self, trials: Sequence[Trial]) -> str:
        """Let the trials save; waits for them."""
        for trial in trials:
            os.kill(int(trial.job), signal.SIGTERM)
        for trial in trials:
            if trial.number in self.processes:
                self.processes[trial.number].wait()
        return "its trials have saved and ended"

    def log(self, trial: Trial, task: Task) -> Path:
        """``run.log`` in the trial's folder."""
        return Path(task.folder) / "run.log"


class Slurm:
    """Tasks of arrays; what is given at once is one array."""

    poll, lag, queues = 5.0, 30.0, True

    def __init__(self, job: Job, parallel: int, command: Sequence[str]) -> None:
        self.job = dataclasses.replace(job, wishes=dataclasses.replace(job.wishes, at_once=parallel), array=True)
        self.command, self.silent = command, 0

    def start(self, trials: Sequence[Trial], tasks: Sequence[Task]) -> None:
        """Submit an array with a task for each trial."""
        text = write_script(dataclasses.replace(self.job, tasks=tuple(tasks)), "slurm", self.command)
        script = Path(self.job.folder) / f"submit-{trials[0].number}.sh"
        atomic_write(script, text)
        number = clusters.submit("slurm", script)
        for task, trial in enumerate(trials):
            trial.job = f"{number}_{task}"

    def alive(self, trials: Sequence[Trial]) -> set[int]:
        """Those that squeue lists."""
        try:
            there = clusters.jobs_there([trial.job for trial in trials])
        except ConfigError:
            # A controller that is restarted answers again after a while.
            self.silent += 1
            if self.silent > MOST_SILENT:
                raise
            return {trial.number for trial in trials}
        self.silent = 0
        return {trial.number for trial in trials if trial.job in there}

    def stop(self, trial: Trial) -> None:
        """Cancel a task."""
        clusters.cancel(trial.job)

    def leave(self, trials: Sequence[Trial]) -> str:
        """Jobs need no sweep to go on."""
        return f"its jobs go on ({', '.join(sorted({trial.job.partition('_')[0] for trial in trials}))})"

    def log(self, trial: Trial, task: Task) -> Path:
        """Slurm's log of the task."""
        return Path(self.job.folder) / f"slurm-{trial.job}.log"
