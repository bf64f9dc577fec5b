"""``--array key=a,b,c``: the product of several lists as tasks, each with words for the command line and a name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm.config.find import SECTIONS
from mllm.config.flags import FlagTable
from mllm.utils.program import UsageError

# Slurm's default MaxArraySize is 1001.
MOST_TASKS = 1000
_RESERVED = {
    "output_dir": "each task has a folder of its own",
    "overwrite_output_dir": "each task has a folder of its own",
    "run_name": "each task is called by its values",
    "resume_from_checkpoint": "each task goes on from its own last checkpoint",
}
_LONGEST_NAME = 120
_CLOSING = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class Task:
    """One run: ``name`` tells its values, ``folder`` is its output_dir, ``words`` are added to the command line."""

    name: str
    folder: str
    config: str
    words: tuple[str, ...] = ()


def parse_arrays(texts: Sequence[str], table: FlagTable) -> dict[str, list[str]]:
    """Key → values of each ``key=a,b``; UsageError for what is no key of a run or no list."""
    arrays: dict[str, list[str]] = {}
    for text in texts:
        key, sign, listed = text.partition("=")
        values = split_values(listed)
        if not sign or not key or not all(values):
            raise UsageError(f"--array {text!r}: expected key=a,b,c")
        key = check_key(key, table, "--array")
        if key in arrays:
            raise UsageError(f"--array {key} is given twice; write all its values in one list")
        if len(set(values)) < len(values):
            raise UsageError(f"--array {text!r} holds a value twice")
        arrays[key] = values
    return arrays


def check_key(key: str, table: FlagTable, flag: str) -> str:
    """``key`` as it is used; UsageError unless it is ``config``, a training argument or a key of a config."""
    if key == "config" or is_option(key):
        return key
    key = key.removeprefix("--").replace("-", "_")
    if key in _RESERVED:
        raise UsageError(f"{flag} {key}: {_RESERVED[key]}")
    try:
        table.takes(key)
    except UsageError as error:
        raise UsageError(f"{flag} {key}: {error}; a key of the config has a dot, as model_args.x") from error
    return key


def is_option(key: str) -> bool:
    """Whether a key is one of ``--cfg-options`` and no flag."""
    return "." in key or key.startswith("+") or key in SECTIONS


def split_values(text: str) -> list[str]:
    """The parts between commas that stand in no bracket and no quotes: ``1,[2,3]`` → ``1``, ``[2,3]``."""
    parts, awaited, quote = [""], [], ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _CLOSING:
            awaited.append(_CLOSING[letter])
        elif awaited and letter == awaited[-1]:
            awaited.pop()
        elif letter == "," and not awaited:
            parts.append("")
            continue
        parts[-1] += letter
    return [part.strip() for part in parts]


def product(arrays: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination, the last key changing fastest; UsageError if there are too many."""
    rows = [dict(zip(arrays, values, strict=True)) for values in itertools.product(*arrays.values())]
    if len(rows) > MOST_TASKS:
        raise UsageError(f"--array: {len(rows)} combinations; expected at most {MOST_TASKS}")
    return rows


def words_of(values: Mapping[str, str]) -> tuple[str, ...]:
    """``seed=1, model_args.x=2`` → ``--seed 1 --cfg-options model_args.x=2``; ``config`` is no word of these."""
    flags = [
        word for key, value in values.items() if key != "config" and not is_option(key) for word in (f"--{key}", value)
    ]
    options = [f"{key}={value}" for key, value in values.items() if is_option(key)]
    return (*flags, *(["--cfg-options", *options] if options else []))


def names_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A folder name for each row: ``seed=1,learning_rate=0.001``; numbered where it would be long or taken."""
    names = [",".join(f"{_plain(key.lstrip('+'))}={_value(key, value)}" for key, value in row.items()) for row in rows]
    if len(set(names)) == len(names) and all(len(name) <= _LONGEST_NAME for name in names):
        return names
    return [f"{number}-{name}"[:_LONGEST_NAME] for number, name in enumerate(names)]


def _value(key: str, value: str) -> str:
    return _plain(Path(value).stem if key == "config" else value)


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "none"
