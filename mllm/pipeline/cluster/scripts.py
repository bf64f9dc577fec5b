"""The script of a job, from a template that a site can edit."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

import mllm
from mllm.config.find import shipped_folder
from mllm.errors import ConfigError, choices
from mllm.pipeline.cluster.jobs import Job, here
from mllm.pipeline.cluster.machines import clock
from mllm.utils.program import UsageError
from mllm.utils.redact import redact_command

CLUSTERS = ("slurm", "sge", "local")
# The tries to go on that a job has; a run that is never saved in time would begin for ever.
MOST_RESTARTS = 100
# What a script lives on; --set may not change it.
_KEPT = {
    "slurm": (
        "nodes",
        "ntasks",
        "ntasks-per-node",
        "array",
        "output",
        "error",
        "open-mode",
        "signal",
        "job-name",
        "time",
    ),
    "sge": ("N", "S", "t", "tc", "o", "e", "j", "wd", "cwd", "notify"),
}


def template_folders() -> list[Path]:
    """Where templates are looked up: ``tools/cluster`` of the current folder, then what ships."""
    checkout = shipped_folder("tools")
    folders = [Path("tools/cluster"), shipped_folder("cluster"), checkout / "cluster" if checkout else None]
    return [folder for folder in folders if folder is not None and folder.is_dir()]


def write_script(job: Job, cluster: str, command: Iterable[str]) -> str:
    """The text of the script; ``command`` is what asked for it. ConfigError if a template is missing or broken."""
    template = job.wishes.template or f"{cluster}.sh.j2"
    own = Path(template)
    folders = [*([own.parent] if job.wishes.template else []), *template_folders()]
    if job.wishes.template and not own.is_file():
        raise ConfigError(
            f"--template {template!r}: no such file; 'mllm submit --copy-templates DIR' writes those that ship"
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(folder) for folder in folders]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"sh": lambda value: shlex.quote(str(value)), "words": shlex.join}
    try:
        return environment.get_template(own.name).render(_values(job, cluster, command))
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"template {error.filename or template}:{error.lineno}: {error.message}") from error
    except jinja2.TemplateNotFound as error:
        raise ConfigError(
            f"template {error.name!r} is in none of {', '.join(map(str, folders)) or 'no folder'}"
        ) from error
    except jinja2.UndefinedError as error:
        known = _values(job, cluster, command)
        raise ConfigError(f"template {template}: {error.message}; {choices('', known, limit=40)}") from error


def _values(job: Job, cluster: str, command: Iterable[str]) -> dict[str, Any]:
    """What a template may name."""
    machines, wishes = job.machines, job.wishes
    return {
        "command": " ".join(shlex.join(redact_command(list(command))).split()),
        "name": job.name,
        "here": here(),
        "path": Path(sys.executable).parent,
        "launcher": _launcher(),
        "script": _script(),
        "folder": job.folder,
        "log_folder": job.log_folder,
        "nodes": machines.nodes,
        "gpus": machines.gpus,
        "cpus": machines.cpus,
        "world": machines.world,
        "engine": machines.engine,
        "zero": machines.zero,
        "time": None if machines.time is None else clock(machines.time),
        "soft_time": None if machines.time is None else clock(machines.time - machines.grace),
        "grace": machines.grace,
        "restarts": MOST_RESTARTS,
        "partition": wishes.partition,
        "account": wishes.account,
        "options": _options(wishes.options, cluster),
        "at_once": wishes.at_once,
        "array": job.array,
        "tasks": job.tasks,
        "words": (*job.words, *(() if machines.gpus else ("--use_cpu", "true"))),
        "resume": job.trains,
    }


def _options(texts: Iterable[str], cluster: str) -> list[str]:
    found = []
    for text in texts:
        key, _, _ = text.lstrip("-").partition("=")
        if cluster not in _KEPT:
            raise UsageError(f"--set {text!r}: --cluster {cluster} takes no options of a queue")
        if not key or any(letter.isspace() for letter in key) or "\n" in text:
            raise UsageError(f"--set {text!r}: expected key=value, or key alone")
        if key in _KEPT[cluster]:
            raise UsageError(f"--set {text!r}: the script sets {key!r} itself; the flags of mllm submit change it")
        found.append(text.lstrip("-"))
    return found


def _launcher() -> list[str]:
    """``accelerate launch`` of this environment, with one sentence for an error instead of its own traceback."""
    beside = (Path(sys.executable).parent / "accelerate").is_file()
    return [
        *(("accelerate",) if beside else ("python", "-m", "accelerate.commands.accelerate_cli")),
        "launch",
        "--quiet",
    ]


def _script() -> str:
    path = Path(mllm.__file__).parent / "pipeline" / "finetune.py"
    near = Path("mllm/pipeline/finetune.py")
    return str(near if near.is_file() and near.samefile(path) else path)
