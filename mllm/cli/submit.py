"""Submit a run, or an array of runs, to Slurm or SGE, or run it here: writes a script that resumes by itself."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from mllm.cli.parsing import Parser
from mllm.config.find import find_config
from mllm.errors import ConfigError
from mllm.pipeline.cluster.machines import Wishes, check_wishes, cluster_here
from mllm.utils.program import UsageError

DETAILS = """

  mllm submit CONFIG -g 8 --time 24:00:00 --partition gpu              one node
  mllm submit CONFIG -N 2 -g 8 --engine fsdp -- --num_train_epochs 1   two nodes, flags of the run
  mllm submit CONFIG --array seed=1,2,3 --array learning_rate=1e-4,1e-3          six runs, each in its folder
  mllm submit CONFIG -g 8 --print                                      the script alone, nothing is submitted

The config, every flag and every combination are checked first. The script lies in the output folder as submit.sh, with
the logs. A job that is preempted, or whose time is nearly up, saves, goes back to the queue and resumes. Options:"""


def main(argv: list[str]) -> int:
    """Check, write the script, submit it; with --print or on this machine, what that gives."""
    parser = Parser("submit", __doc__ + DETAILS)
    parser.usage = f"{parser.prog} CONFIG [options] [-- flags of the run]"
    parser.add_argument("--cluster", choices=("slurm", "sge", "local"), help="default: whose commands are there")
    add_job_options(parser)
    parser.add_argument("--at-once", type=int, metavar="K", help="run at most K tasks of an array at a time")
    parser.add_argument("--print", action="store_true", help="write the script to stdout; submit and write nothing")
    parser.add_argument("--copy-templates", metavar="DIR", help="copy the templates that ship, for a site to edit")
    config, arguments, words = split_line(parser, argv)
    if arguments.copy_templates:
        return _copy_templates(Path(arguments.copy_templates))
    return _submit(config, arguments, words, option_names(parser), ["mllm", "submit", *argv])


def add_job_options(parser: Parser) -> None:
    """What a job may ask for, for submit and sweep."""
    add = parser.add_argument
    add("--name", help="name of the job; it writes to work_dirs/NAME (default: the config's output_dir)")
    add("-N", "--nodes", type=int, default=1, metavar="N", help="nodes (1)")
    add("-g", "--gpus", type=int, metavar="G", help="GPUs of each node (1; here: all); 0: one process on the CPU")
    add("--processes", type=int, metavar="P", help="P processes of each node on the CPU instead")
    add("-c", "--cpus", type=int, metavar="C", help="cores of each node (one for each process and each of its loaders)")
    add("--engine", metavar="E", help="ddp, fsdp, zero2, zero3: a file of accelerate_config (ddp)")
    add("--time", metavar="T", help="HH:MM:SS, D-HH, D-HH:MM:SS or minutes")
    add("--grace", type=int, default=120, metavar="S", help="seconds before that in which the run saves (120)")
    add("--partition", metavar="P", help="partition, on SGE queue")
    add("--account", metavar="A")
    help_set = "another option of sbatch or qsub, as mem=64G; may be repeated"
    add("--set", dest="options", action="append", default=[], metavar="KEY=VALUE", help=help_set)
    help_array = "a run for each value of a flag, of a key of the config, or of 'config'; repeated: every combination"
    add("--array", action="append", default=[], metavar="KEY=A,B,…", help=help_array)
    add("--template", metavar="FILE", help="a template instead of tools/cluster/<cluster>.sh.j2")


def split_line(parser: Parser, argv: Sequence[str]) -> tuple[str | None, argparse.Namespace, list[str]]:
    """The config, which stands first, the verb's own options, and the flags of the run, behind ``--`` or not."""
    words = list(argv)
    config = words.pop(0) if words and not words[0].startswith("-") else None
    cut = words.index("--") if "--" in words else len(words)
    arguments, rest = parser.parse_known_args(words[:cut])
    return config, arguments, [*rest, *words[cut + 1 :]]


def option_names(parser: Parser) -> list[str]:
    """The long flags of a parser, for near names."""
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]


def wishes_of(arguments: argparse.Namespace) -> Wishes:
    """The options of a job as one record."""
    given = {one.name: getattr(arguments, one.name) for one in fields(Wishes) if hasattr(arguments, one.name)}
    return Wishes(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _submit(
    config: str | None, arguments: argparse.Namespace, words: list[str], own: list[str], command: list[str]
) -> int:
    if config is not None:
        find_config(config)
    elif not arguments.array:
        raise UsageError("mllm submit: no config given; 'mllm list-cfg' shows what ships")
    cluster = arguments.cluster or cluster_here()
    check_options(arguments, cluster)
    from mllm.pipeline.cluster import clusters
    from mllm.pipeline.cluster.jobs import flag_table, plan_job, read_line
    from mllm.pipeline.cluster.scripts import write_script

    table = flag_table()
    line = read_line(config, words, table, own)
    job = plan_job(line, wishes_of(arguments), table, here=cluster == "local")
    text = write_script(job, cluster, command)
    if arguments.print:
        sys.stdout.write(text)
        if cluster != "local":
            print(f"the folder of the logs must be there: mkdir -p {job.folder}", file=sys.stderr)
        return 0
    clusters.refuse_second(cluster, job)
    script = clusters.keep_script(job, text)
    if cluster == "local":
        sys.stdout.flush()
        os.execvp("bash", ["bash", str(script)])
    number = clusters.submit(cluster, script)
    count = f", {len(job.tasks)} tasks" if job.array else ""
    print(f"submitted job {number} ({job.name}{count}): {script}\n{clusters.told(cluster, job, number)}")
    return 0


def check_options(arguments: argparse.Namespace, cluster: str) -> None:
    """UsageError for what is wrong whatever the config says, and for what ``cluster`` does not take."""
    check_wishes(wishes_of(arguments), here=cluster == "local")
    for name in ("partition", "account", "time", "options", "at_once"):
        if cluster == "local" and getattr(arguments, name, None):
            flag = {"options": "set", "at_once": "at-once"}.get(name, name)
            raise UsageError(f"--{flag} is for a queue, and the run is to be here")


def _copy_templates(folder: Path) -> int:
    from mllm.pipeline.cluster.scripts import template_folders

    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(template_folders()[-1].glob("*.j2")):
        target = folder / source.name
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise ConfigError(f"{target} is there and differs; name another folder")
        shutil.copyfile(source, target)
        print(target)
    return 0
