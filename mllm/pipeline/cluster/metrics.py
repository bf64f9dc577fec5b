"""Which metrics a run will give, and which way is better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mllm.config.arguments import FAILURE_RATE
from mllm.errors import choices
from mllm.registry import EVALUATORS
from mllm.utils.program import UsageError

TRAIN_LOSS = "train_loss"


def choose_metric(asked: str | None, values: Mapping[str, Any]) -> str:
    """The metric that a sweep goes by: ``asked``, else the first that is declared; UsageError if none will be there."""
    known = [metric for _, metrics in _sets(values) for metric in metrics]
    if asked is None:
        if not known:
            raise UsageError(
                "the run computes no score to go by: let it evaluate (--do_eval), or say --metric train_loss"
            )
        return known[0]
    training = values["training_args"]
    trains = [TRAIN_LOSS] if training.get("do_train") else []
    for metric in (asked, f"eval_{asked}"):
        if metric in (*known, *trains):
            return metric
    raise UsageError(
        f"--metric {asked!r} is none that this run computes; {choices(asked, [*known, *trains])}; --do_eval, "
        "--do_predict and --do_multi_predict say what is computed"
    )


def is_maximized(metric: str) -> bool:
    """Whether more is better."""
    return not metric.endswith(("loss", "perplexity", FAILURE_RATE))


def _sets(values: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    training, data = values["training_args"], values.get("data_args") or {}
    evaluates = training.get("do_eval") or (
        training.get("do_train") and str(training.get("eval_strategy") or "no") != "no"
    )
    asked = {"eval": ("validation", evaluates), "test": ("test", training.get("do_predict"))}
    for prefix, (key, wanted) in asked.items():
        if wanted and data.get(key):
            yield prefix, _metrics(prefix, data[key])
    if training.get("do_multi_predict"):
        for name, one in (data.get("multitest") or {}).items():
            yield f"multitest_{name}", _metrics(f"multitest_{name}", one)


def _metrics(prefix: str, cfg: Mapping[str, Any]) -> list[str]:
    evaluators = [EVALUATORS.build(one) for one in cfg.get("evaluators", ())]
    declared = [metric for evaluator in evaluators for metric in evaluator.metrics]
    return [f"{prefix}_{metric}" for metric in (*declared, FAILURE_RATE)]
