"""Seq2SeqTrainer with our data path: one loss, samplers with epochs, learning rates per part, generated evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Seq2SeqTrainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from mllm.engine.collators import TrainCollator
from mllm.engine.figures import Measured
from mllm.engine.loss import token_loss
from mllm.engine.notes import Notes
from mllm.engine.optimizer import MuonWithAdamW, is_hidden_matrix
from mllm.engine.preemption import StopOnSignal
from mllm.engine.samplers import build_sampler
from mllm.engine.saving import whole_checkpoint
from mllm.engine.sharded import name_wrapped_layers, own_storage
from mllm.errors import ConfigError, choices

PART_RATES = {"projector": "mm_projector_lr", "vision": "vision_lr", "language": "language_lr"}


class _TellSamplerTheEpoch(TrainerCallback):
    """accelerate's ``set_epoch`` does not reach a sampler below SkipBatchSampler (a resumed epoch), seen in 1.15."""

    def __init__(self, trainer: MultimodalTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.train_sampler.set_epoch(int((state.epoch or 0) + 1e-6))


class MultimodalTrainer(Measured, Seq2SeqTrainer):
    """Trains any family. ``evaluate_with`` generates and scores: ``(metric_key_prefix) -> metrics``."""

    def __init__(
        self,
        *,
        family: Any,
        processor: Any,
        evaluate_with: Callable[[str], dict[str, float]] | None = None,
        error_budget: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            processing_class=processor, data_collator=TrainCollator(processor), compute_loss_func=token_loss, **options
        )
        # Our loss divides by the step's tokens; models must not be told, some would take the number as an input.
        self.model_accepts_loss_kwargs = False
        self.family = family
        self.notes = Notes(error_budget)
        self.evaluate_with = evaluate_with
        self.train_sampler: Any = None
        name_wrapped_layers(self)
        if (self.args.bf16 or self.args.fp16) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            hold_trained_in_float32(self.model)
        self.add_callback(_TellSamplerTheEpoch(self))
        self.stop_on_signal = StopOnSignal()
        self.add_callback(self.stop_on_signal)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        args = self.args
        self.train_sampler = build_sampler(
            train_dataset if train_dataset is not None else self.train_dataset,
            args.train_sampling_strategy,
            batch_size=self._train_batch_size * args.gradient_accumulation_steps * args.world_size,
            seed=args.data_seed if args.data_seed is not None else args.seed,
        )
        return self.train_sampler

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = dict(inputs)
        self.notes.add(inputs.pop("notes", []))
        return super()._prepare_inputs(inputs)

    def train(self, *args: Any, **options: Any) -> Any:
        """As transformers'; whatever ends it, signals mean afterwards what they meant before."""
        try:
            return super().train(*args, **options)
        finally:
            self.stop_on_signal.stop_listening()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval", **_: Any
    ) -> dict[str, float]:
        """Generate for the validation set and score it; the metrics are logged and can select the best checkpoint."""
        if self.evaluate_with is None:
            return {}
        metrics = self.evaluate_with(metric_key_prefix)
        best = self.args.metric_for_best_model
        if self.is_in_train and best is not None and f"eval_{best.removeprefix('eval_')}" not in metrics:
            raise ConfigError(f"metric_for_best_model={best!r} could not be computed; {choices(best, metrics)}")
        if self.is_in_train and self.is_world_process_zero():
            with open(Path(self.args.output_dir) / "evaluations.jsonl", "a", encoding="utf-8") as rows:
                rows.write(json.dumps({"step": self.state.global_step, **metrics}) + "\n")
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # Saving and loading: transformers 5.23's Trainer writes what `save_pretrained` makes of the model and reads it back
    # with `strict=False`; the family's layout is written and read strictly instead.
    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole weights; of a model in FSDP's pieces transformers 5.23 writes none beside sharded states."""
        if self.is_fsdp_enabled:
            self._save(output_dir, state_dict=self.accelerator.get_state_dict(self.model))
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir if output_dir is not None else self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        state = None if state_dict is None else own_storage(state_dict)
        self.family.save_weights(self.accelerator.unwrap_model(self.model), state, folder)
        self.processing_class.save_pretrained(folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with whole_checkpoint(folder, self.accelerator, writes=self.args.should_save):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:  # an older one goes only once this one is whole
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(folder.parent), save_total_limit=limit, best_model_checkpoint=best, use_mtime=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self.family.load_weights(model if model is not None else self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
            return
        self.family.load_weights(self.model, self.state.best_model_checkpoint)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW & co. with one group per part and weight decay; ``mm_projector_lr`` and its like set a part's rate.

        ``muon_lr`` gives the matrices of hidden layers to Muon.
        """
        if self.optimizer is not None:
            return self.optimizer
        target = model if model is not None else self.model
        decayed = set(self.get_decay_parameter_names(target))
        if self.family.decayed is not None:
            decayed = {name for name in decayed if any(word in name for word in self.family.decayed)}
        optimizer_class, optimizer_options = self.get_optimizer_cls_and_kwargs(self.args, target)
        groups = self._parameter_groups(target, decayed)
        if self.args.muon_lr is None:
            self.optimizer = optimizer_class([group for group, _ in groups], **optimizer_options)
            return self.optimizer
        if optimizer_class is not torch.optim.AdamW:
            optim = str(getattr(self.args.optim, "value", self.args.optim))
            raise ConfigError(f"muon_lr works beside optim='adamw_torch', not {optim!r}")
        matrices = [group for group, hidden in groups if hidden]
        self.optimizer = MuonWithAdamW(matrices, [group for group, hidden in groups if not hidden], optimizer_options)
        return self.optimizer

    def _parameter_groups(self, model: nn.Module, decayed: set[str]) -> list[tuple[dict[str, Any], bool]]:
        """The groups, each with whether Muon trains it."""
        groups: dict[tuple[str, bool, bool], dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            part = self.family.part_of(name)
            hidden = self.args.muon_lr is not None and is_hidden_matrix(name, parameter)
            key = (part if self._rate(part) is not None else "all", name in decayed, hidden)
            if key not in groups:
                groups[key] = {"params": [], "weight_decay": self.args.weight_decay if name in decayed else 0.0}
                rate = self._rate(part) if key[0] != "all" else self.args.muon_lr if hidden else None
                if rate is not None:
                    groups[key]["lr"] = rate
            groups[key]["params"].append(parameter)
        return [(group, key[2]) for key, group in groups.items()]

    def _rate(self, part: str) -> float | None:
        return getattr(self.args, PART_RATES.get(part, ""), None)


def hold_trained_in_float32(model: nn.Module) -> None:
    """Keep trained weights whole where the run computes in half precision; FSDP and DeepSpeed keep copies of their own.

    AdamW's steps are smaller than what bfloat16 can add to a weight: most of them would be lost.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def with_prefix(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Metric names as Hugging Face's files have them: ``eval_acc@0.5``."""
    return {f"{prefix}_{name}": value for name, value in metrics.items()}
