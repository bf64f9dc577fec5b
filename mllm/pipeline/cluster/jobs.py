"""A job, planned: every run of it resolved and checked before anything is written or submitted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.config.checks import check_output_folder, check_tasks, last_checkpoint
from mllm.config.find import find_config
from mllm.config.flags import FlagTable, split_command_line
from mllm.config.prepare import argument_fields, resolve
from mllm.config.renamed import old_flags
from mllm.errors import choices
from mllm.pipeline.cluster.arrays import Task, names_of, parse_arrays, product, words_of
from mllm.pipeline.cluster.machines import Machines, Wishes, choose_machines
from mllm.utils.program import UsageError

# Kept in the output folder.
SCRIPT = "submit.sh"


@dataclass(frozen=True)
class Job:
    """What is submitted: ``tasks`` run with ``words`` each; ``array`` tells a list of one from a single run."""

    name: str
    folder: str
    machines: Machines
    wishes: Wishes
    words: tuple[str, ...]
    tasks: tuple[Task, ...]
    array: bool
    trains: bool

    @property
    def log_folder(self) -> Path:
        """Where the logs of all tasks lie, from the root."""
        return here() / self.folder


@dataclass(frozen=True)
class Line:
    """The run's part of the command line: its config (None where an array names several), words and output_dir."""

    config: str | None
    words: tuple[str, ...]
    output_dir: str | None


def flag_table() -> FlagTable:
    """Every flag that a run knows."""
    fields = argument_fields()
    return FlagTable(fields.values(), old_flags(fields))


def read_line(config: str | None, words: Sequence[str], table: FlagTable, own_flags: Sequence[str]) -> Line:
    """Split the words of a run; UsageError for an unknown flag, with the near names of ``own_flags`` as well."""

    def takes(name: str) -> str:
        try:
            return table.takes(name)
        except UsageError:
            if f"--{name.replace('_', '-')}" in own_flags:
                raise UsageError(f"--{name} is no flag of the run: it stands before the --") from None
            known = [*own_flags, *(f"--{one}" for one in (*table.fields, *table.old, "cfg_options"))]
            raise UsageError(f"unknown flag --{name}; {choices('--' + name, known)}") from None

    line = split_command_line(words, takes)
    if line.config is not None:
        raise UsageError(f"{line.config!r} is no flag and no value; the config is the first word of the line")
    if "resume_from_checkpoint" in line.flags:
        raise UsageError(
            "--resume_from_checkpoint is the script's own: it goes on from the last checkpoint in output_dir; "
            "--init_from starts from weights"
        )
    given = line.flags.get("output_dir") or [None]
    return Line(None if config is None else str(find_config(config)), _without_output_dir(words), given[0])


def _without_output_dir(words: Sequence[str]) -> tuple[str, ...]:
    kept, skipped = [], False
    for word in words:
        name, sign, _ = word.partition("=")
        if skipped or name.replace("-", "_") == "__output_dir":
            skipped = not skipped and not sign
        else:
            kept.append(word)
    return tuple(kept)


def plan_job(line: Line, wishes: Wishes, table: FlagTable, *, here: bool) -> Job:
    """Check everything that can be checked away from the machines; UsageError or ConfigError in one sentence."""
    arrays = parse_arrays(wishes.array, table)
    check_given_twice(arrays, line, table, "--array")
    rows = product(arrays)
    values = [check_row(row, line) for row in rows]
    name, folder = name_and_folder(line, wishes, values[0])
    names = names_of(rows) if arrays else [""]
    tasks = [make_task(line, name, one, row, folder) for one, row in zip(names, rows, strict=True)]
    for task, one in zip(tasks, values, strict=True):
        check_folder(task.folder, one["training_args"])
    trains = any(one["training_args"].get("do_train") for one in values)
    machines = choose_machines(wishes, values[0]["training_args"], here=here)
    return Job(name, folder, machines, wishes, line.words, tuple(tasks), bool(arrays), trains)


def check_given_twice(keys: Mapping[str, Any], line: Line, table: FlagTable, flag: str) -> None:
    """UsageError where a varied key is also set on the line."""
    given = split_command_line(line.words, table.takes)
    named = {*given.flags, *(option.name for option in given.options)}
    for key in keys:
        if key.lstrip("+") in named:
            raise UsageError(f"{flag} {key} and {key} among the flags of the run: give one of them")
    if "config" in keys and line.config is not None:
        raise UsageError(f"the config {line.config!r} and {flag} config=…: give one of them")
    if "config" not in keys and line.config is None:
        raise UsageError("no config given; 'mllm list-cfg' shows what ships")


def check_row(row: Mapping[str, str], line: Line) -> dict[str, Any]:
    """The whole config of one task, resolved as the run will; its output_dir is decided elsewhere."""
    resolved = resolve([str(row.get("config") or line.config), *line.words, *words_of(row)])
    training = resolved.values["training_args"]
    check_tasks({**resolved.values, "training_args": {**training, "output_dir": "decided elsewhere"}}, resolved.path)
    return resolved.values


def name_and_folder(line: Line, wishes: Wishes, values: Mapping[str, Any]) -> tuple[str, str]:
    """Name and output folder: ``--output_dir``, else ``work_dirs/NAME``, else the config's own."""
    if line.config is None and wishes.name is None and line.output_dir is None:
        raise UsageError("--array config=… has no name of its own: give --name")
    folder = line.output_dir or (
        f"work_dirs/{wishes.name}" if wishes.name else values["training_args"].get("output_dir")
    )
    folder = str(folder or f"work_dirs/{Path(str(line.config)).stem}")
    return wishes.name or _plain_name(Path(folder).name), folder.rstrip("/")


def _plain_name(text: str) -> str:
    return re.sub(r"[^\w.,+=-]+", "-", text).lstrip(".,+=-") or "mllm"


def make_task(line: Line, job: str, name: str, row: Mapping[str, str], folder: str) -> Task:
    """A task below ``folder``, known to trackers as ``job/name``; without a name the job's only one."""
    config = str(find_config(row["config"])) if "config" in row else str(line.config)
    if not name:
        return Task("", folder, config)
    called = (
        ()
        if any(word.partition("=")[0] in ("--run_name", "--run-name") for word in line.words)
        else ("--run_name", f"{job}/{name}")
    )
    return Task(name, f"{folder}/{name}", config, (*called, *words_of(row)))


def check_folder(folder: str, training: Mapping[str, Any]) -> None:
    """What the run would refuse, and a script that starts again and again could not put right."""
    if not training.get("do_train"):
        return
    checkpoint = last_checkpoint(folder)
    if checkpoint is None and not _is_a_start(Path(folder)):
        check_output_folder({**training, "output_dir": folder, "resume_from_checkpoint": None})
    elif checkpoint is not None and training.get("overwrite_output_dir"):
        raise UsageError(
            f"--overwrite_output_dir, but {folder!r} holds {checkpoint.name}, from which the script goes on: leave the "
            "flag out to go on, or choose another --name"
        )


def _is_a_start(folder: Path) -> bool:
    """Whether a run began here and ended before its first checkpoint, or was only submitted: nothing would be lost."""
    if (folder / "run.json").is_file():
        return not (folder / "train_results.json").is_file()
    return folder.is_dir() and all(one.name == SCRIPT or one.suffix == ".log" for one in folder.iterdir())


def here() -> Path:
    """The current folder as the shell calls it: what it resolves to may not exist on another machine."""
    named = Path(os.environ.get("PWD", ""))
    return named if named.is_absolute() and named.is_dir() and named.samefile(Path.cwd()) else Path.cwd()
