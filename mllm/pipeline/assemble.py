"""From a resolved config to the objects of a run: data, evaluation sets, trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mllm.config.arguments import FAILURE_RATE
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.evaluate import EvaluationSet
from mllm.errors import ConfigError, choices
from mllm.registry import DATASETS, EVALUATORS


def train_dataset(cfg: Mapping[str, Any], processor: Any, seed: int) -> SingleImageConvDataset:
    """``data_args.train`` as samples with labels, the first of them checked."""
    samples = train_samples(cfg, processor, seed)
    samples.check()
    return samples


def train_samples(cfg: Mapping[str, Any], processor: Any, seed: int) -> SingleImageConvDataset:
    """``data_args.train`` as samples with labels; no row is read."""
    if cfg.get("train") is None:
        raise ConfigError("data_args.train is not set but do_train is; give it a dict(type=…)")
    on_error = cfg.get("on_error", "raise")
    if on_error not in ("raise", "replace"):
        raise ConfigError(f"data_args.on_error={on_error!r}; known: raise, replace")
    dataset = DATASETS.build(cfg["train"])
    return SingleImageConvDataset(dataset, processor, mode="train", seed=seed, on_error=on_error, name="train")


def evaluation_set(name: str, cfg: Mapping[str, Any] | None, processor: Any, key: str) -> EvaluationSet:
    """``dict(dataset=…, evaluators=[…])`` as a set that can be predicted and scored."""
    if cfg is None:
        raise ConfigError(f"{key} is not set; give it dict(dataset=dict(type=…), evaluators=[dict(type=…)])")
    for part in ("dataset", "evaluators"):
        if part not in cfg:
            raise ConfigError(f"{key}: {part!r} is missing; expected dict(dataset=dict(type=…), evaluators=[…])")
    dataset = SingleImageConvDataset(DATASETS.build(cfg["dataset"]), processor, mode="generate", name=name)
    evaluators = [EVALUATORS.build(one) for one in cfg["evaluators"]]
    return EvaluationSet(name, dataset, cfg["dataset"], evaluators, cfg["evaluators"])


def blanked(sets: Mapping[str, EvaluationSet], processor: Any) -> dict[str, EvaluationSet]:
    """The sets with every picture painted grey, as ``PREFIX_blind``: what is still right is known from the text."""
    found = {}
    for prefix, one in sets.items():
        if f"{prefix}_blind" in sets:
            raise ConfigError(
                f"blind_test: the files of {prefix}_blind would be another set's; call that set otherwise"
            )
        cfg = {"dataset": {"type": "BlankImages", "dataset": one.dataset_cfg}, "evaluators": one.evaluator_cfgs}
        found[f"{prefix}_blind"] = evaluation_set(f"{one.name} (blanked pictures)", cfg, processor, one.name)
    return found


def needs_validation(args: Any) -> bool:
    """Whether the run evaluates, or shows samples of, ``data_args.validation``."""
    shows = args.sample_steps is not None and args.sample_count > 0
    return args.do_eval or (args.do_train and (args.eval_on_start or args.eval_strategy != "no" or shows))


def choose_best_metric(args: Any, validation: EvaluationSet | None) -> None:
    """Let the first metric of the validation set select the best checkpoint where ``metric_for_best_model`` names none.

    ConfigError if it names one that is neither declared by an evaluator nor ``failure_rate``.
    """
    if args.metric_for_best_model is None or not args.do_train:
        return
    known = [*validation.metrics, FAILURE_RATE] if validation else []
    metric = args.metric_for_best_model
    if metric == "loss" and known:  # transformers' default; evaluation generates, it computes no loss
        args.metric_for_best_model, args.greater_is_better = known[0], known[0] != FAILURE_RATE
    elif metric.removeprefix("eval_") not in known:
        raise ConfigError(f"metric_for_best_model={metric!r} is no declared metric; {choices(metric, known)}")


def total_steps(trainer: Any) -> int:
    """Optimiser steps of the whole run, as the trainer will count them."""
    args = trainer.args
    if args.max_steps > 0:
        return args.max_steps
    return math.ceil(args.num_train_epochs * math.ceil(len(trainer.train_dataset) / batch_of_a_step(args)))


def batch_of_a_step(args: Any) -> int:
    """Samples of one optimiser step over all processes."""
    return args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps


def generation_options(cfg: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """Generation arguments: the checkpoint's, then the config's; a length limit is always there."""
    options = {**processor.generation, **dict(cfg.get("generation") or {})}
    if (options.get("num_return_sequences") or 1) > 1:
        raise ConfigError("generation.num_return_sequences: a prediction holds one answer to a sample; leave it out")
    options.setdefault("max_new_tokens", 256)
    return options
