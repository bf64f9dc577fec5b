"""What a sweep varies: ``learning_rate=log:1e-5:1e-3``, and the samplers that choose values."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllm.config.flags import FlagTable
from mllm.pipeline.cluster.arrays import check_key, split_values
from mllm.utils.imports import require
from mllm.utils.program import UsageError

KINDS = ("float", "log", "int", "logint")


@dataclass(frozen=True)
class Dimension:
    """One key's values: a list, or all numbers between two ends (both included)."""

    kind: str = "list"
    low: float = 0
    high: float = 0
    values: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to check before a trial starts: all of a list, both ends of a range."""
        return self.values or (self.text(self.low), self.text(self.high))

    def text(self, number: float) -> str:
        """A number of the range as it stands on the command line: four digits."""
        if self.kind.endswith("int"):
            return str(round(number))
        return (
            f"{min(max(float(f'{number:.4g}'), self.low), self.high):g}"
            if number not in (self.low, self.high)
            else repr(number)
        )

    def draw(self, rng: random.Random) -> str:
        """A value, each as likely; of a logarithmic range each order of magnitude."""
        if self.values:
            return rng.choice(self.values)
        if self.kind == "int":
            return str(rng.randint(int(self.low), int(self.high)))
        if self.kind.startswith("log"):
            return self.text(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return self.text(rng.uniform(self.low, self.high))


def parse_space(texts: Sequence[str], table: FlagTable) -> dict[str, Dimension]:
    """Key → what it may be; UsageError in one sentence."""
    space: dict[str, Dimension] = {}
    for text in texts:
        key, sign, what = text.partition("=")
        if not sign or not key or not what:
            raise UsageError(
                f"--space {text!r}: expected key=log:LOW:HIGH, key=float:…, key=int:…, key=logint:… or key=a,b"
            )
        key = check_key(key, table, "--space")
        if key in space:
            raise UsageError(f"--space {key} is given twice")
        space[key] = _dimension(text, what)
    return space


def _dimension(text: str, what: str) -> Dimension:
    kind, _, ends = what.partition(":")
    if kind not in KINDS:
        values = tuple(split_values(what))
        if not all(values) or len(set(values)) < len(values):
            raise UsageError(f"--space {text!r}: a value is empty or there twice")
        return Dimension(values=values)
    try:
        low, high = (int(one) if kind.endswith("int") else float(one) for one in ends.split(":"))
    except ValueError:
        numbers = "whole numbers" if kind.endswith("int") else "numbers"
        raise UsageError(f"--space {text!r}: expected {kind}:LOW:HIGH with two {numbers}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"--space {text!r}: expected LOW below HIGH")
    if kind.startswith("log") and low <= 0:
        raise UsageError(f"--space {text!r}: a logarithmic range begins above 0")
    return Dimension(kind, low, high)


@dataclass(frozen=True)
class Grid:
    """The combinations of ``--array``, in their order."""

    rows: Sequence[Mapping[str, str]]
    learns = False

    def propose(self, number: int, history: Sequence[Any]) -> dict[str, str]:
        """Values of trial ``number``."""
        return dict(self.rows[number])


@dataclass(frozen=True)
class Random:
    """Each trial's values depend on its number and the seed alone."""

    space: Mapping[str, Dimension]
    seed: int
    learns = False

    def propose(self, number: int, history: Sequence[Any]) -> dict[str, str]:
        """Values of trial ``number``."""
        rng = random.Random(f"{self.seed}/{number}")
        return {key: dimension.draw(rng) for key, dimension in self.space.items()}


@dataclass(frozen=True)
class Tpe:
    """Optuna's tree-structured Parzen estimator, told of all trials before it is asked: nothing else is kept."""

    space: Mapping[str, Dimension]
    seed: int
    maximize: bool
    learns = True

    def propose(self, number: int, history: Sequence[Any]) -> dict[str, str]:
        """Values of trial ``number``, in the light of ``history`` (trials with ``values``, ``state``, ``value``)."""
        optuna = require("optuna", "sweep")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self.seed + number)
        study = optuna.create_study(sampler=sampler, direction="maximize" if self.maximize else "minimize")
        distributions = {key: self._distribution(optuna, one) for key, one in self.space.items()}
        for trial in history:
            if told := self._told(optuna, trial, distributions):
                study.add_trial(told)
        asked = study.ask(distributions)
        return {key: one if self.space[key].values else self.space[key].text(one) for key, one in asked.params.items()}

    def _distribution(self, optuna: Any, one: Dimension) -> Any:
        if one.values:
            return optuna.distributions.CategoricalDistribution(one.values)
        log = one.kind.startswith("log")
        if one.kind.endswith("int"):
            return optuna.distributions.IntDistribution(int(one.low), int(one.high), log=log)
        return optuna.distributions.FloatDistribution(one.low, one.high, log=log)

    def _told(self, optuna: Any, trial: Any, distributions: Mapping[str, Any]) -> Any:
        states = {"finished": "COMPLETE", "pruned": "PRUNED"}
        # A trial without a number would tell nothing, a failed one nothing about its values.
        if trial.state not in states or (trial.value is None and not trial.curve):
            return None
        params = {
            key: value
            if self.space[key].values
            else float(value)
            if not self.space[key].kind.endswith("int")
            else int(value)
            for key, value in trial.values.items()
        }
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState[states[trial.state]],
            params=params,
            distributions=dict(distributions),
            value=trial.value if trial.state == "finished" else None,
            intermediate_values=dict(trial.curve),
        )
