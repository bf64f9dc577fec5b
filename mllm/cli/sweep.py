"""Run a config with many values, here or on Slurm, and find the best by one metric; hopeless trials are stopped."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from mllm.cli.parsing import Parser
from mllm.cli.submit import add_job_options, check_options, option_names, split_line, wishes_of
from mllm.config.find import find_config
from mllm.utils.program import UsageError

if TYPE_CHECKING:
    from mllm.pipeline.cluster.jobs import Job, Line
    from mllm.pipeline.cluster.sweep import Goal, Sweep

DETAILS = """

  mllm sweep CONFIG --array learning_rate=1e-4,1e-3 --array seed=1,2            every combination
  mllm sweep CONFIG --space learning_rate=log:1e-5:1e-3 --trials 20             drawn; by optuna where it is installed
  mllm sweep CONFIG --space tune.lora.r=8,16,64 --space weight_decay=float:0:0.1 --trials 30 --jobs slurm --parallel 8

The folder work_dirs/NAME keeps trials.jsonl, a folder for each trial, and best.json with the command that repeats the
best one. The same command goes on with a sweep that was stopped; more --trials add to it. Options:"""
SHOWN = 10


def main(argv: list[str]) -> int:
    """Check, run the trials that are not done yet, print the best; 1 if all fail."""
    parser = _parser()
    config, arguments, words = split_line(parser, argv)
    if config is None:
        raise UsageError("mllm sweep: no config given; 'mllm list-cfg' shows what ships")
    find_config(config)
    check_options(arguments, arguments.jobs)
    if bool(arguments.array) == bool(arguments.space):
        raise UsageError("expected --array (every combination) or --space (drawn values), one of both")
    if arguments.space and arguments.trials is None:
        raise UsageError("--space needs --trials N")
    if arguments.array and (arguments.trials is not None or arguments.sampler):
        raise UsageError("--trials and --sampler go with --space; --array runs every combination")
    for name in ("trials", "parallel"):
        if (given := getattr(arguments, name)) is not None and given < 1:
            raise UsageError(f"--{name} {given}: expected at least 1")
    if arguments.prune_after < 0:
        raise UsageError(f"--prune-after {arguments.prune_after}: expected at least 0 (0: no trial is stopped early)")
    return _sweep(config, arguments, words, option_names(parser), ["mllm", "sweep", *argv])


def _parser() -> Parser:
    parser = Parser("sweep", __doc__ + DETAILS)
    parser.usage = f"{parser.prog} CONFIG (--array … | --space … --trials N) [options] [-- flags of the run]"
    add = parser.add_argument
    help_metric = (
        "as eval_acc@0.5, test_…, multitest_NAME_…, train_loss (default: the first that an evaluator declares)"
    )
    add("--metric", help=help_metric)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--maximize", action="store_true", help="more is better (all but losses and failure_rate)")
    way.add_argument("--minimize", action="store_true")
    help_space = "key=log:LOW:HIGH, float:…, int:…, logint:… or key=a,b,c; may be repeated"
    add("--space", action="append", default=[], metavar="KEY=…", help=help_space)
    add("--trials", type=int, metavar="N", help="how many trials in all, those of before included")
    add("--sampler", choices=("tpe", "random"), help="tpe is optuna's (default where optuna is installed)")
    add("--sampler-seed", type=int, default=0, metavar="N", help="what the drawn values depend on (0)")
    add("--jobs", choices=("local", "slurm"), default="local", help="processes here, or arrays of Slurm (local)")
    add("--parallel", type=int, default=1, metavar="K", help="trials at a time (1)")
    help_prune = "stop a trial that is worse than the median at a step that N others have come to (4; 0: never)"
    add("--prune-after", type=int, default=4, metavar="N", help=help_prune)
    add("--retry", action="store_true", help="run failed trials of before again")
    add_job_options(parser)
    return parser


def _sweep(
    config: str, arguments: argparse.Namespace, words: Sequence[str], own: Sequence[str], command: list[str]
) -> int:
    from mllm.pipeline.cluster.jobs import flag_table, read_line
    from mllm.pipeline.cluster.sweep import Sweep, alone_in, check_same

    table = flag_table()
    line = read_line(config, words, table, own)
    job, goal, sampler = _plan(line, arguments, table)
    folder = Path(job.folder)
    with alone_in(folder):
        check_same(folder, _definition(config, arguments, words, goal, sampler))
        runner = _runner(job, arguments, command)
        sweep = Sweep(job.name, folder, line, goal, sampler, runner, lambda text: print(text, flush=True))
        if arguments.retry:
            for trial in sweep.trials:
                trial.state = "waiting" if trial.state == "failed" else trial.state
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            best = sweep.run()
        finally:
            signal.signal(signal.SIGTERM, before)
    print(_table(sweep, best.number))
    return 0


def _plan(line: Line, arguments: argparse.Namespace, table: Any) -> tuple[Job, Goal, Any]:
    from mllm.pipeline.cluster.arrays import parse_arrays, product
    from mllm.pipeline.cluster.jobs import Job, check_given_twice, check_row, name_and_folder
    from mllm.pipeline.cluster.machines import choose_machines, visible_gpus
    from mllm.pipeline.cluster.metrics import choose_metric, is_maximized
    from mllm.pipeline.cluster.space import Grid, Random, Tpe, parse_space
    from mllm.pipeline.cluster.sweep import Goal

    wishes = wishes_of(arguments)
    space = parse_space(arguments.space, table)
    rows = product(parse_arrays(arguments.array, table)) if arguments.array else _corners(space)
    check_given_twice(rows[0], line, table, "--array" if arguments.array else "--space")
    values = [check_row(row, line) for row in rows]  # every one is checked
    if wishes.name is None and line.output_dir is None:
        wishes = replace(wishes, name=f"{Path(str(line.config)).stem}_sweep")
    name, folder = name_and_folder(line, wishes, values[0])
    here, training = arguments.jobs == "local", values[0]["training_args"]
    present = len(visible_gpus())
    if here and wishes.gpus is None and present and not training.get("use_cpu"):
        wishes = replace(wishes, gpus=max(present // arguments.parallel, 1))
    machines = choose_machines(wishes, training, here=here)
    if here and machines.gpus * arguments.parallel > present:
        raise UsageError(
            f"--parallel {arguments.parallel} with {machines.gpus} GPUs each: this machine shows {present}"
        )
    metric = choose_metric(arguments.metric, values[0])
    maximize = arguments.maximize or (not arguments.minimize and is_maximized(metric))
    if arguments.array:
        sampler: Any = Grid(rows)
    elif arguments.sampler == "tpe" or (arguments.sampler is None and importlib.util.find_spec("optuna")):
        sampler = Tpe(space, arguments.sampler_seed, maximize)
    else:
        sampler = Random(space, arguments.sampler_seed)
    goal = Goal(metric, maximize, arguments.trials or len(rows), arguments.parallel, arguments.prune_after)
    trains = bool(training.get("do_train"))
    return Job(name, folder, machines, wishes, line.words, (), True, trains), goal, sampler


def _corners(space: Any) -> list[dict[str, str]]:
    """Values that are checked before the first trial: every end of each dimension."""
    first = {key: dimension.ends[0] for key, dimension in space.items()}
    return [{**first, key: end} for key, dimension in space.items() for end in dimension.ends]


def _runner(job: Job, arguments: argparse.Namespace, command: list[str]) -> Any:
    from mllm.pipeline.cluster.runners import Local, Slurm

    return (Local if arguments.jobs == "local" else Slurm)(job, arguments.parallel, command)


def _definition(
    config: str, arguments: argparse.Namespace, words: Sequence[str], goal: Goal, sampler: Any
) -> dict[str, Any]:
    """What must be the same for a sweep to go on."""
    return {
        "config": config,
        "words": list(words),
        "array": arguments.array,
        "space": arguments.space,
        "metric": goal.metric,
        "maximize": goal.maximize,
        "sampler": type(sampler).__name__.lower(),
        "sampler_seed": arguments.sampler_seed,
    }


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt


def _table(sweep: Sweep, best: int) -> str:
    """The best trials, the sum of all, and how to repeat the best."""
    from mllm.pipeline.cluster.sweep import ended
    from mllm.pipeline.cluster.trials import plain
    from mllm.utils.files import read_json

    sign = -1 if sweep.goal.maximize else 1
    order = sorted(sweep.trials, key=lambda one: (one.value is None, sign * (one.value or 0), one.number))
    keys = list(order[0].values)
    rows = [["trial", *keys, sweep.goal.metric, ""]]
    rows += [
        [str(one.number), *one.values.values(), plain(one.value), "" if one.value is not None else one.state]
        for one in order[:SHOWN]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    found = read_json(sweep.folder / "best.json")
    return "\n".join(
        [
            "",
            lines[0],
            "-" * max(map(len, lines)),
            *lines[1:],
            "",
            f"{sweep.folder}: {ended(sweep.trials)}",
            f"best: trial {best}, {found['folder']}",
            f"again: {found['command']}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
