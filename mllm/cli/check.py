"""Check a config and every row of its data before the run: no GPU, no weights."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.cli.parsing import Parser
from mllm.utils.program import UsageError

if TYPE_CHECKING:
    from mllm.pipeline.check_config import CheckReport

DETAILS = """

Takes CONFIG, --cfg-options and flags as finetune.py does. Builds all that the config names but the weights, then reads
every row of train, validation, test and multitest: the row itself, its images, turns, placeholders, boxes and points,
what is trained of it, what max_length cuts, repeated rows, and images of train that are evaluated on, too. Sources of
a mixture are read once each. An "error" is a row that a run would fail on or lose, a "warning" is suspicious.

Exit code 1 if a run would fail or lose more rows than data_args.on_error and error_budget allow (rows of an evaluation
set may not be lost), else 0. Options:"""
SHOWN = 3
NAME_WIDTH = 40


def main(argv: list[str]) -> int:
    """Print the table of problems, or JSON; 1 if a run would fail."""
    parser = Parser("check", __doc__ + DETAILS)
    parser.usage = f"{parser.prog} CONFIG [--rows N] [--decode] [--json] [--fix OUT] [--workers K] [--cfg-options ...]"
    parser.add_argument("--rows", type=int, metavar="N", help="read N rows of each source, spread evenly over it")
    parser.add_argument("--decode", action="store_true", help="decode every image, not only its header")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    help_fix = "a new folder: the rows without errors as ItemJsonl files, and dropped.log: what was left out and why"
    parser.add_argument("--fix", metavar="OUT", help=help_fix)
    parser.add_argument("--workers", type=int, metavar="K", help="processes (default: one for each core)")
    arguments, rest = parser.parse_known_args(argv)
    for name in ("rows", "workers"):
        if (given := getattr(arguments, name)) is not None and given < 1:
            raise UsageError(f"--{name} {given}: expected at least 1")
    if arguments.fix and arguments.rows is not None:
        raise UsageError("--fix copies all good rows: leave out --rows")
    report = _check(arguments, rest)
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        print(_text(report))
    return 0 if report.verdict.passes else 1


def _check(arguments: Any, rest: list[str]) -> CheckReport:
    from mllm.pipeline.check_config import check_config

    return check_config(
        rest,
        rows=arguments.rows,
        decode=arguments.decode,
        workers=arguments.workers or _cores(),
        copy_to=arguments.fix,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _text(report: CheckReport) -> str:
    sources = [source.to_dict() for source in report.sources]
    parts = [_table(sources), *_sentences(sources)]
    parts += [f"{name}: dict({_arguments(copy)})" for name, copy in report.copies.items()]
    return "\n".join([*parts, report.summary])


def _table(sources: list[dict[str, Any]]) -> str:
    rows = [("source", "rows", "problem", "", "found in", "share", "first places")]
    for source in sources:
        name, count = _short(source["source"], NAME_WIDTH), f"{source['checked']:,}"
        if not source["problems"]:
            rows.append((name, count, "none", "", "", "", ""))
        for one in source["problems"]:
            share = f"{one['share']:.1%}"
            rows.append((name, count, one["problem"], one["severity"], f"{one['rows']:,}", share, _places(one)))
            name = count = ""
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in (1, 4, 5) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([*cells, row[6]]).rstrip())
    return "\n".join([lines[0], "-" * min(max(map(len, lines)), 120), *lines[1:]])


def _sentences(sources: list[dict[str, Any]]) -> list[str]:
    """The first of each kind in its own words."""
    first: dict[str, str] = {}
    for source in sources:
        for one in source["problems"]:
            found = one["first"][0]
            first.setdefault(one["problem"], f"{one['problem']}: {_place(found['place'])}: {found['message']}")
    return ["", *(" ".join(sentence.split()) for sentence in first.values()), *([""] if first else [])]


def _places(problem: dict[str, Any]) -> str:
    """``file:3:image, :7:image, …``: what is the same as in the first is said once."""
    places = [_place(first["place"]) for first in problem["first"][:SHOWN]]
    file = re.split(r"[:\[]\d", places[0])[0]
    told = [places[0], *(place.removeprefix(file) for place in places[1:])]
    return ", ".join([*told, "…"] if problem["rows"] > SHOWN else told)


def _place(place: str) -> str:
    """Relative to the current folder if it lies below."""
    here = f"{Path.cwd()}{os.sep}"
    return place.removeprefix(here)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _arguments(cfg: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in cfg.items())
