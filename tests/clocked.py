"""A training on a clock of its own; as a program, on one or two processes: ``clocked.py OUT_FOLDER BATCH``.

A step takes 3 s, an item 1 s on the first process and 2 s on the second, an evaluation and what another callback does
at the end of a step 1000 s.
"""

import json
import sys
from pathlib import Path

import tiny
import torch
from accelerate import PartialState
from transformers import TrainerCallback

from mllm.config.arguments import Seq2SeqArguments
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.trainer import MultimodalTrainer
from mllm.models.tuning import Tuning
from mllm.registry import DATASETS


class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


class SlowItems(SingleImageConvDataset):
    clock, seconds = None, 1.0

    def __getitem__(self, key):
        self.clock.pass_by(self.seconds)
        return super().__getitem__(key)


class SlowTrainer(MultimodalTrainer):
    def training_step(self, *args, **options):
        self.figures.clock.pass_by(3)
        return super().training_step(*args, **options)


class SlowPages(TrainerCallback):
    def __init__(self, clock):
        self.clock = clock

    def on_step_end(self, args, state, control, **_):
        self.clock.pass_by(1000)


def slow_trainer(folder, batch=4, rank=0, **changes):
    torch.manual_seed(0)
    clock, family = Clock(), tiny.family()
    processor = family.build_processor(tiny.CONVERSATION)
    defaults = {"max_steps": 6, "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 2}
    options = {"report_to": "none", "use_cpu": True, "train_sampling_strategy": "sequential", **defaults, **changes}
    args = Seq2SeqArguments(output_dir=str(folder), per_device_train_batch_size=batch, **options)
    train = SlowItems(DATASETS.build({**tiny.REC, "count": 24}), processor)
    train.clock, train.seconds = clock, 1.0 + rank

    def evaluate(prefix):
        clock.pass_by(1000)
        return {f"{prefix}_zero": 0.0}

    model = family.build_model(processor, Tuning(freeze=[]))
    parts = {"family": family, "processor": processor, "evaluate_with": evaluate, "eval_dataset": train}
    trainer = SlowTrainer(model=model, args=args, train_dataset=train, **parts)
    trainer.figures.clock = clock
    trainer.add_callback(SlowPages(clock))
    return trainer


def rows_of(trainer, resume=None):
    """The rows with a loss that this call of training has added."""
    before = 0
    if resume is not None:
        before = len(json.loads((Path(resume) / "trainer_state.json").read_text())["log_history"])
    trainer.train(resume_from_checkpoint=resume)
    return [row for row in trainer.state.log_history[before:] if "loss" in row]


def main():
    folder, batch = Path(sys.argv[1]), int(sys.argv[2])
    trainer = slow_trainer(folder, batch, PartialState(cpu=True).process_index)
    rows = rows_of(trainer)
    if trainer.is_world_process_zero():
        (folder / "rows.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
