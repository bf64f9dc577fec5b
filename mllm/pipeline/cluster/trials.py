"""The trials of a sweep, each change of one a line of ``trials.jsonl``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from mllm.errors import ConfigError, DataError
from mllm.utils.checkpoint_folders import is_complete
from mllm.utils.files import read_json, read_jsonl

STATES = ("waiting", "running", "finished", "pruned", "failed")


@dataclass
class Trial:
    """One run of a sweep; ``curve`` holds the metric by step as training went on, ``job`` where it runs."""

    number: int
    values: dict[str, str]
    name: str
    state: str = "waiting"
    value: float | None = None
    reason: str = ""
    job: str = ""
    curve: dict[int, float] = field(default_factory=dict)


class TrialLog:
    """``trials.jsonl`` of a sweep's folder: the last line of a number is what is known of that trial."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trials.jsonl"

    def read(self) -> list[Trial]:
        """All trials by number; a line that a crash cut short, the last, is dropped."""
        trials: dict[int, Trial] = {}
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            self.path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        for line, row in read_jsonl(self.path):
            try:
                curve = {int(step): float(value) for step, value in row.pop("curve", {}).items()}
                trials[row["number"]] = Trial(**row, curve=curve)
            except (TypeError, KeyError, ValueError, AttributeError) as error:
                raise ConfigError(f"{self.path}:{line}: is no trial: {error}") from error
        return [trials[number] for number in sorted(trials)]

    def write(self, trial: Trial) -> None:
        """Add what is known of a trial now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(dataclasses.asdict(trial), ensure_ascii=False) + "\n")


def final_value(folder: Path, metric: str) -> float | None:
    """The metric of a run that came to its end: of its results, else the last of its history."""
    value = _numbers(folder / "all_results.json").get(metric)
    if value is None and (seen := _history(folder, metric)):
        value = seen[max(seen)]
    return None if value is None else float(value)


def curve(folder: Path, metric: str) -> dict[int, float]:
    """The metric by step while training goes on: of ``evaluations.jsonl``, else of the last checkpoint."""
    path = folder / "evaluations.jsonl"
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return {row["step"]: float(row[metric]) for row in rows if metric in row}
    # last_checkpoint would tell of the one that is being written, at every look.
    seen: dict[int, float] = {}
    for checkpoint in folder.glob("checkpoint-*"):
        if is_complete(checkpoint):
            seen |= _history(checkpoint, metric)
    return seen


def _history(folder: Path, metric: str) -> dict[int, float]:
    rows = _numbers(folder / "trainer_state.json").get("log_history", ())
    return {row["step"]: float(row[metric]) for row in rows if metric in row}


def _numbers(path: Path) -> dict[str, Any]:
    """A file of a run that is at work: it may not be there yet, or no more, or be half written."""
    try:
        return read_json(path)
    except (DataError, OSError):
        return {}


def is_hopeless(seen: Mapping[int, float], others: Sequence[Mapping[int, float]], after: int, maximize: bool) -> bool:
    """The median rule: the best of a trial so far is worse than what the middle one of ``others`` had at that step.

    Only where at least ``after`` others have come to that very step; before the first step nothing is told.
    """
    if not seen or after < 1 or (step := max(seen)) == 0:
        return False
    rivals = [other[step] for other in others if step in other and math.isfinite(other[step])]
    if len(rivals) < after:
        return False
    sign = 1 if maximize else -1
    mine = [sign * value for at, value in seen.items() if at > 0 and math.isfinite(value)]
    return not mine or max(mine) < median(sign * value for value in rivals)


def best_of(trials: Sequence[Trial], maximize: bool) -> Trial | None:
    """The finished trial with the best value; of equal ones the first."""
    finished = [trial for trial in trials if trial.state == "finished"]
    sign = 1 if maximize else -1
    return max(finished, key=lambda trial: (sign * trial.value, -trial.number), default=None)


def why_failed(log: Path) -> str:
    """The error that a log ends with, else its last words."""
    if not log.is_file():
        return "it left no log"
    text = log.read_bytes()[-20000:].decode("utf-8", errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if ": error: " in line]
    # What torch's launcher says of the failure stands behind it.
    said = errors or [line for line in lines if not line.startswith("[")] or lines
    return (said[-1] if said else "its log is empty")[:300]


def plain(value: Any) -> str:
    """A value of a metric for people."""
    return "-" if value is None else f"{value:.4g}"
