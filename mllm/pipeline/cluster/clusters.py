"""The commands of Slurm and SGE: submit a script, tell what is still there, take it back."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mllm.errors import ConfigError
from mllm.pipeline.cluster.jobs import SCRIPT, Job, here
from mllm.pipeline.cluster.machines import SUBMITS
from mllm.utils.files import atomic_write
from mllm.utils.program import UsageError


def keep_script(job: Job, text: str) -> Path:
    """Write the script into the output folder, which the cluster needs for its logs; ConfigError if that fails."""
    path = Path(job.folder) / SCRIPT
    try:
        atomic_write(path, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another --output_dir") from error
    return path


def submit(cluster: str, script: Path) -> str:
    """Hand the script to the cluster; its number for the job. ConfigError with the cluster's words if it refuses."""
    command = [SUBMITS[cluster], "--parsable" if cluster == "slurm" else "-terse", str(script)]
    return _called(command).split(";")[0].split(".")[0].strip()


def told(cluster: str, job: Job, number: str) -> str:
    """How to watch the job, and how to end it."""
    if cluster == "slurm":
        log = f"{job.folder}/slurm-{number}{'_*' if job.array else ''}.log"
        watch, end = f"squeue -j {number}", f"scancel {number}"
    else:
        log = f"{job.folder}/sge-{number}{'.*' if job.array else ''}.log"
        watch, end = f"qstat -j {number}", f"qdel {number}"
    return f"  watch   {watch}\n  log     tail -F {log}\n  cancel  {end}"


def refuse_second(cluster: str, job: Job) -> None:
    """UsageError if a job of this name, from this folder, is still there: both would write to the same files."""
    if cluster != "slurm":
        return
    found = _called(["squeue", "--noheader", "--me", f"--name={job.name}", "--format=%i %Z"]).splitlines()
    for line in found:
        number, _, folder = line.strip().partition(" ")
        if Path(folder) == here():
            raise UsageError(f"job {number} is called {job.name!r} and still there: scancel it, or give another --name")


def jobs_there(numbers: Sequence[str]) -> set[str]:
    """Those of ``numbers`` (``12`` or ``12_3``) that are queued or running."""
    listed = _called(["squeue", "--noheader", "--me", "--array", "--format=%i"]).split()
    return {number for number in numbers if number in listed}


def cancel(number: str) -> None:
    """End a job of Slurm; nothing where it has ended."""
    _called(["scancel", "--quiet", number])


def _called(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise ConfigError(f"{command[0]} could not be called: {error.strerror}; is this a login node?") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ConfigError(f"{command[0]} refused: {said.removeprefix(f'{command[0]}: ').removeprefix('error: ')}")
    return done.stdout
