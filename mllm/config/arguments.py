"""Our training arguments. Importing this file imports torch: `mllm.config` does so only when they are needed."""

# No `from __future__ import annotations`: the types of the fields are read to convert flags.
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import Seq2SeqTrainingArguments

from mllm.config.report_to import chosen_trackers, default_trackers
from mllm.errors import ConfigError, choices

GROUP_BY_MODALITY_LENGTH = "group_by_modality_length"
FAILURE_RATE = "failure_rate"


@dataclass
class Seq2SeqArguments(Seq2SeqTrainingArguments):
    """transformers' arguments with ours; what differs in a default is redefined here."""

    report_to: str | list[str] | None = field(
        default_factory=default_trackers,
        metadata={"help": "Trackers: tensorboard (default if installed), wandb, trackio, mlflow, all, none."},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Our samples are no columns: always false."})
    do_multi_predict: bool = field(default=False, metadata={"help": "Predict every data set of data_args.multitest."})
    blind_test: bool = field(
        default=False, metadata={"help": "Predict the test sets a second time with blanked pictures."}
    )
    sample_steps: int | None = field(
        default=None,
        metadata={"help": "Write samples/step_N.html every so many steps; unless given with each evaluation."},
    )
    sample_count: int = field(
        default=8, metadata={"help": "Validation items that samples/step_N.html shows; 0 writes no such pages."}
    )
    mm_projector_lr: float | None = field(default=None, metadata={"help": "Learning rate of the projector."})
    vision_lr: float | None = field(default=None, metadata={"help": "Learning rate of the vision tower."})
    language_lr: float | None = field(default=None, metadata={"help": "Learning rate of the language model."})
    muon_lr: float | None = field(
        default=None,
        metadata={"help": "Train the matrices of hidden layers by Muon with this rate, the rest by AdamW."},
    )
    init_from: str | None = field(
        default=None,
        metadata={"help": "Start from the weights of this checkpoint (no optimiser, no step: not a resumed run)."},
    )
    mirror_to: str | None = field(
        default=None,
        metadata={"help": "Copy each checkpoint to this path (s3://…, or a folder) after it is saved."},
    )
    allow_changed_data: bool = field(
        default=False, metadata={"help": "Resume although the training data are not those that the run began with."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Allow an output_dir that is not empty; nothing in it is deleted."}
    )

    def __post_init__(self) -> None:
        """Derived values of transformers; an evaluation strategy alone does not ask for evaluation without training."""
        asked_for_eval = self.do_eval
        self.report_to = chosen_trackers(self.report_to)
        if self.metric_for_best_model in ("loss", "eval_loss"):
            raise ConfigError(
                "metric_for_best_model: evaluation generates, it computes no loss; name a metric of an evaluator, or "
                "leave it out for the first one"
            )
        if self.greater_is_better is None and self.metric_for_best_model in (FAILURE_RATE, f"eval_{FAILURE_RATE}"):
            self.greater_is_better = False
        super().__post_init__()
        if not self.do_train:
            self.do_eval = asked_for_eval
        if self.remove_unused_columns:
            raise ConfigError("remove_unused_columns must be false: samples are built from items, not from columns")
        for one in fields(self):
            allowed = allowed_values(one)
            value = getattr(self, one.name)
            if allowed and isinstance(value, str) and value not in allowed:
                raise ConfigError(f"{one.name}: {value!r} is none of its values; {choices(value, allowed)}")
        if self.sample_count < 0 or (self.sample_steps is not None and self.sample_steps < 1):
            fault = f"sample_steps={self.sample_steps!r}, sample_count={self.sample_count!r}"
            raise ConfigError(f"{fault}; expected steps from 1 and a count from 0 (0 writes no samples)")
        if (self.fp16 or self.fp16_full_eval) and self.device.type == "cpu":
            raise ConfigError("fp16 needs a GPU and there is none: --fp16 false, or --bf16 --use_cpu")


def allowed_values(one: Any) -> list[str]:
    """The texts that a field with a fixed set of values takes; empty for the others."""
    values = [str(getattr(value, "value", value)) for value in one.metadata.get("choices") or ()]
    if values and one.name == "train_sampling_strategy":
        values.append(GROUP_BY_MODALITY_LENGTH)
    return values


def build_arguments(values: dict[str, Any]) -> Seq2SeqArguments:
    """The arguments for this machine; ConfigError in one sentence for what transformers refuses."""
    try:
        return Seq2SeqArguments(**values)
    except (ValueError, TypeError, ImportError, NotImplementedError, RuntimeError, OSError) as error:
        raise ConfigError(_sentence(str(error), values)) from error


def _sentence(message: str, values: dict[str, Any]) -> str:
    line = " ".join(message.split())
    if "bf16" in line and (values.get("bf16") or values.get("bf16_full_eval")):
        return "bf16 needs a GPU that has it, and there is none here: --bf16 false, or --use_cpu to compute bf16 on CPU"
    if "tf32" in line and values.get("tf32"):
        return "tf32 needs an Ampere or newer GPU, and there is none here: --tf32 false"
    return f"training_args: {line}"
