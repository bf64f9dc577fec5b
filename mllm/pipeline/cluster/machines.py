"""What a job asks of the machines, checked: nodes, GPUs or CPU processes, cores, time, engine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.config.find import shipped_folder
from mllm.errors import ConfigError, choices
from mllm.utils.program import UsageError

_TIME = re.compile(r"(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?")
SUBMITS = {"slurm": "sbatch", "sge": "qsub"}
_NAME = re.compile(r"\w[\w.,+=-]*", re.ASCII)
_CLOCK = re.compile(r"(\d+):(\d{2}):(\d{2})")
# Slurm's limit for --signal.
_LONGEST_GRACE = 65535


@dataclass(frozen=True)
class Wishes:
    """What the user typed; None where a default is taken."""

    name: str | None = None
    nodes: int = 1
    gpus: int | None = None
    processes: int | None = None
    cpus: int | None = None
    engine: str | None = None
    time: str | None = None
    grace: int = 120
    partition: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()
    array: tuple[str, ...] = ()
    at_once: int | None = None
    template: str | None = None


@dataclass(frozen=True)
class Machines:
    """``gpus`` of each node, or ``processes`` on the CPU of each; ``cpus`` cores of each; times in seconds."""

    nodes: int
    gpus: int
    processes: int
    cpus: int
    engine: str
    zero: bool
    time: int | None
    grace: int

    @property
    def per_node(self) -> int:
        """Processes of a node."""
        return self.gpus or self.processes

    @property
    def world(self) -> int:
        """Processes of all nodes together."""
        return self.nodes * self.per_node


def cluster_here() -> str:
    """The cluster whose commands are on the path, else ``local``."""
    return next((name for name, command in SUBMITS.items() if shutil.which(command)), "local")


def check_wishes(wishes: Wishes, *, here: bool) -> None:
    """UsageError for what is wrong whatever the config says; reads no config."""
    numbers = {"-N": wishes.nodes, "--processes": wishes.processes, "-c": wishes.cpus, "--at-once": wishes.at_once}
    _at_least(1, **numbers)
    _at_least(0, **{"-g": wishes.gpus, "--grace": wishes.grace})
    if wishes.grace > _LONGEST_GRACE:
        raise UsageError(f"--grace {wishes.grace}: expected at most {_LONGEST_GRACE} seconds")
    if wishes.processes is not None and wishes.gpus:
        raise UsageError(f"-g {wishes.gpus} and --processes {wishes.processes}: processes run on GPUs or on the CPU")
    if here and wishes.nodes > 1:
        raise UsageError(f"-N {wishes.nodes}: --cluster local is this machine alone")
    if wishes.name is not None and not _NAME.fullmatch(wishes.name):
        raise UsageError(f"--name {wishes.name!r}: expected letters, digits and . _ + = , - alone")
    if wishes.time is not None:
        seconds_of(wishes.time)
    if wishes.engine is not None:
        engine_file(wishes.engine)


def choose_machines(wishes: Wishes, training: Mapping[str, Any], *, here: bool) -> Machines:
    """Check the wishes against ``training_args``; UsageError in one sentence. ``here``: on this machine."""
    check_wishes(wishes, here=here)
    if training.get("use_cpu") and wishes.gpus:
        raise UsageError(
            f"-g {wishes.gpus}, but the config says use_cpu: leave -g out, or give the run --use_cpu false"
        )
    on_cpu = wishes.processes is not None or training.get("use_cpu")
    gpus = 0 if on_cpu else _gpus(wishes.gpus, here=here)
    workers = int(training.get("dataloader_num_workers") or 0)
    processes = 0 if gpus else wishes.processes or 1
    seconds = None if wishes.time is None else seconds_of(wishes.time)
    engine = engine_file(wishes.engine or _default_engine(wishes.nodes, gpus, processes))
    if not gpus and wishes.engine not in (None, "ddp", "cpu"):
        raise UsageError(f"--engine {wishes.engine} needs GPUs; on the CPU processes run under ddp: leave it out")
    return Machines(
        nodes=wishes.nodes,
        gpus=gpus,
        processes=processes,
        cpus=wishes.cpus or (gpus or processes) * (1 + workers),
        engine=engine,
        zero=_is_deepspeed(engine),
        time=seconds,
        # A job shorter than its grace would be told to stop as it begins.
        grace=wishes.grace if seconds is None else min(wishes.grace, seconds // 4),
    )


def _at_least(least: int, **given: int | None) -> None:
    for flag, value in given.items():
        if value is not None and value < least:
            raise UsageError(f"{flag} {value}: expected at least {least}")


def _gpus(asked: int | None, *, here: bool) -> int:
    if not here:
        return 1 if asked is None else asked
    present = len(visible_gpus())
    if asked is not None and asked > present:
        raise UsageError(f"-g {asked}: this machine shows {present} GPUs; --processes N runs on the CPU")
    return present if asked is None else asked


def visible_gpus() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them; torch is not loaded."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
    return present if named is None else [one.strip() for one in named.split(",") if one.strip()][: len(present)]


def _default_engine(nodes: int, gpus: int, processes: int) -> str:
    if nodes * (gpus or processes) > 1:
        return "ddp"
    return "default_config" if gpus else "cpu"


def engine_file(name: str) -> str:
    """The file of ``accelerate_config/`` called ``name``, or the file itself; ConfigError with near names."""
    if Path(name).is_file():
        return name
    folders = [Path("accelerate_config"), shipped_folder("accelerate_config")]
    known = {path.stem: path for folder in reversed(folders) if folder for path in folder.glob("*.yaml")}
    stem = name.removesuffix(".yaml")
    if stem not in known:
        raise ConfigError(f"--engine {name!r} is no file and no engine of accelerate_config; {choices(stem, known)}")
    return str(known[stem])


def _is_deepspeed(engine: str) -> bool:
    return bool(
        re.search(r"^distributed_type:\s*['\"]?DEEPSPEED", Path(engine).read_text(encoding="utf-8"), re.MULTILINE)
    )


def seconds_of(text: str) -> int:
    """Seconds of a time as Slurm writes it: minutes, H:MM:SS, D-H, D-H:MM or D-H:MM:SS; UsageError otherwise."""
    if re.fullmatch(r"\d+", text):
        seconds = int(text) * 60
    elif match := _CLOCK.fullmatch(text):
        hours, minutes, rest = map(int, match.groups())
        seconds = hours * 3600 + minutes * 60 + rest
    elif match := _TIME.fullmatch(text):
        part = {name: int(value or 0) for name, value in match.groupdict().items()}
        seconds = ((part["days"] * 24 + part["hours"]) * 60 + part["minutes"]) * 60 + part["seconds"]
    elif re.fullmatch(r"\d+:\d+", text):
        raise UsageError(f"--time {text}: to Slurm these are minutes and seconds; write hours as {text}:00")
    else:
        raise UsageError(f"--time {text!r}: expected HH:MM:SS, D-HH:MM:SS, D-HH, or minutes")
    if seconds < 60:
        raise UsageError(f"--time {text}: expected at least a minute")
    return seconds


def clock(seconds: int) -> str:
    """``90061`` → ``25:01:01``."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
