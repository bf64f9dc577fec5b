"""Score saved predictions again, or compare two runs: no GPU, no model, no config is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.cli.parsing import Parser
from mllm.errors import ConfigError, DataError, choices
from mllm.evaluation.base import RESAMPLES
from mllm.utils.program import UsageError

if TYPE_CHECKING:
    from mllm.pipeline.scoring.scored import ScoredSet

DETAILS = """

  mllm score RUN_DIR [--set NAME ...]                 the sets of a run, from its manifests and predictions
  mllm score --evaluator NAME --predictions FILE --annotations FILE ...      files that others wrote
  mllm score --compare A B [--set NAME]               B - A: run folders, files of one, or what --json wrote
  mllm score RUN_DIR [--set NAME] --challenge OUT     the file for a challenge's server; nothing is scored

Intervals are 95 % bootstrap intervals over images. An index that is missing, repeated or unknown is an error. Files may
be gzipped; their layout is known by its fields. Options:"""
RUN_FILES = ("_manifest.json", "_predictions.jsonl", "_scores.jsonl", "_scores.json")
OF_FILES = ("predictions", "annotations", "questions", "select", "option", "formatter")


def main(argv: list[str]) -> int:
    """Print the scores or the comparison, and write them if ``--json`` asks for it."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    import_modules(arguments.imports)
    if arguments.challenge:
        _challenge(arguments)
    else:
        _compare(arguments) if arguments.compare else _score(arguments)
    return 0


def _parser() -> Parser:
    parser = Parser("score", __doc__ + DETAILS)
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN_DIR", help="the output_dir of a run")
    add(
        "--set", nargs="+", action="extend", default=[], metavar="NAME", help="eval, test, or a name of multitest (all)"
    )
    add("--compare", nargs=2, metavar=("A", "B"), help="two versions of the same sets")
    add("--evaluator", metavar="NAME", help="a registered evaluator, for files of others")
    add("--predictions", metavar="FILE")
    add("--annotations", nargs="+", default=[], metavar="FILE", help="one or more files with the truth")
    add("--questions", metavar="FILE", help="questions with ids, where the join or --select needs them")
    add("--select", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="a subset of the questions")
    add("--option", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="options of the evaluator")
    add("--formatter", metavar="NAME", help="what boxes in predictions of others are written with")
    add("--resamples", type=int, default=RESAMPLES, metavar="N", help=f"bootstrap draws ({RESAMPLES}; 0: no intervals)")
    add("--allow-partial", action="store_true", help="score what is there and mark the number 'k of N'")
    add("--import", nargs="+", dest="imports", default=[], metavar="MODULE", help="modules of evaluators from outside")
    add(
        "--challenge", metavar="OUT", help="write captions (COCO, VizWiz) or answers (VQA, VizWiz) as servers take them"
    )
    add("--json", metavar="OUT", help="write full numbers, intervals, tables and statistics")
    return parser


def _check(arguments: Any) -> None:
    given = [bool(one) for one in (arguments.run, arguments.compare, arguments.evaluator)]
    if sum(given) != 1:
        raise UsageError("expected one of: RUN_DIR, --compare A B, --evaluator NAME with --predictions FILE")
    if arguments.challenge and (not arguments.run or arguments.json):
        raise UsageError("--challenge goes with RUN_DIR and without --json")
    alone = [name for name in OF_FILES if getattr(arguments, name)]
    if alone and not arguments.evaluator:
        raise UsageError(f"--{alone[0]} is for files of others: add --evaluator NAME")
    if arguments.evaluator and not arguments.predictions:
        raise UsageError("--evaluator needs --predictions FILE")
    if arguments.evaluator and arguments.set:
        raise UsageError("--set is for run folders; --select FIELD=VALUE chooses among files of others")
    if arguments.resamples < 0:
        raise UsageError(f"--resamples {arguments.resamples}: expected at least 0")


def _score(arguments: Any) -> None:
    from mllm.cli._score_text import scored_text
    from mllm.pipeline.scoring.scored import write_scored

    sets = [_score_files(arguments)] if arguments.evaluator else _run_sets(Path(arguments.run), arguments)
    if arguments.json:
        _writing(arguments.json, lambda path: write_scored(path, sets))
    print("\n\n".join(map(scored_text, sets)))


def _challenge(arguments: Any) -> None:
    from mllm.pipeline.scoring.challenge import write_challenge
    from mllm.pipeline.scoring.run_sets import run_records, sets_of

    names = sets_of(Path(arguments.run), arguments.set)
    if len(names) > 1:
        raise UsageError(f"--challenge takes one set and {arguments.run} has {', '.join(names)}: add --set NAME")
    records = run_records(Path(arguments.run), names[0], allow_partial=arguments.allow_partial)
    _writing(arguments.challenge, lambda path: print(f"{path}: {write_challenge(path, records)}"), "--challenge")


def _compare(arguments: Any) -> None:
    import json

    from mllm.cli._score_text import comparison_text
    from mllm.pipeline.scoring.compare import compare_sets
    from mllm.utils.files import atomic_write

    sides = [_side(Path(path), arguments) for path in arguments.compare]
    options = {"resamples": arguments.resamples, "allow_partial": arguments.allow_partial}
    found = [compare_sets(a, b, **options) for a, b in _paired(*sides)]
    if arguments.json:
        text = json.dumps([one.to_dict() for one in found], indent=2, ensure_ascii=False) + "\n"
        _writing(arguments.json, lambda path: atomic_write(path, text))
    print("\n\n".join(map(comparison_text, found)))
    for side, sets, compared in zip("AB", sides, ([one.a for one in found], [one.b for one in found]), strict=True):
        if alone := [one.name for one in sets if one.name not in compared]:
            print(f"in {side} alone: {', '.join(alone)}")


def _side(path: Path, arguments: Any) -> list[ScoredSet]:
    from mllm.pipeline.scoring.scored import read_scored

    if path.is_dir():
        return _run_sets(path, arguments, resamples=0)
    if not path.is_file():
        raise DataError(f"--compare {str(path)!r}: no such folder or file")
    for ending in RUN_FILES:
        name = path.name.removesuffix(ending)
        if name != path.name and path.with_name(f"{name}_manifest.json").is_file():
            return _run_sets(path.parent, arguments, resamples=0, names=[name])
    found = read_scored(path)
    for name in arguments.set:
        if name not in [one.name for one in found]:
            raise ConfigError(f"{path} has no set {name!r}; {choices(name, [one.name for one in found])}")
    return [one for one in found if not arguments.set or one.name in arguments.set]


def _paired(first: list[ScoredSet], second: list[ScoredSet]) -> list[tuple[ScoredSet, ScoredSet]]:
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    theirs = {one.name: one for one in second}
    pairs = [(one, theirs[one.name]) for one in first if one.name in theirs]
    if not pairs:
        names = [", ".join(one.name for one in side) for side in (first, second)]
        raise DataError(f"no set in common: A has {names[0]}, B has {names[1]}")
    return pairs


def _run_sets(
    folder: Path, arguments: Any, *, resamples: int | None = None, names: Sequence[str] | None = None
) -> list[ScoredSet]:
    from mllm.pipeline.scoring.run_sets import score_run_set, sets_of

    draws = arguments.resamples if resamples is None else resamples
    chosen = sets_of(folder, arguments.set if names is None else names)
    return [score_run_set(folder, name, resamples=draws, allow_partial=arguments.allow_partial) for name in chosen]


def _score_files(arguments: Any) -> ScoredSet:
    from mllm.config.options import parse_value
    from mllm.pipeline.scoring.foreign import Files, score_files

    options = {key: parse_value(value, key) for key, value in _assigned(arguments.option, "--option").items()}
    formatter = None if arguments.formatter is None else parse_value(arguments.formatter, "formatter")
    files = Files(
        arguments.predictions,
        arguments.annotations,
        arguments.questions,
        _assigned(arguments.select, "--select"),
        formatter,
        arguments.allow_partial,
    )
    return score_files({"type": arguments.evaluator, **options}, files, resamples=arguments.resamples)


def _assigned(words: list[str], flag: str) -> dict[str, str]:
    for word in words:
        if "=" not in word or word.startswith("="):
            raise UsageError(f"{flag} {word!r}: expected name=value")
    return dict(word.split("=", 1) for word in words)


def import_modules(names: Sequence[str]) -> None:
    """Import modules by name, from the current folder too; a failure is a ConfigError."""
    if names and str(Path.cwd()) not in sys.path:
        # At the end: a file here must not take the place of a library.
        sys.path.append(str(Path.cwd()))
    for name in names:
        try:
            import_module(name)
        except (ImportError, SyntaxError, AttributeError, NameError, ValueError) as error:
            raise ConfigError(f"--import {name}: could not be imported: {error}") from error


def _writing(out: str, write: Any, flag: str = "--json") -> None:
    try:
        write(Path(out))
    except OSError as error:
        raise ConfigError(f"{flag} {out!r} cannot be written: {error.strerror}; name a file") from error
