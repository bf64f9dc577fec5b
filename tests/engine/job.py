"""Run by the tests on one and on two processes: one optimiser step, and predictions of several sizes.

Usage: job.py OUT_FOLDER BATCH ACCUMULATION ITEMS.jsonl [SIZES]
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny

from mllm.config.arguments import Seq2SeqArguments
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.predict import Generator, predict
from mllm.engine.trainer import MultimodalTrainer
from mllm.models.tuning import Tuning
from mllm.registry import DATASETS


def build(folder, batch, accumulation, items):
    torch.manual_seed(0)
    family = tiny.family()
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor, Tuning(freeze=[]))
    dataset = DATASETS.build({"type": "ItemJsonl", "path": items, "image_root": str(Path(items).parent)})
    args = Seq2SeqArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        learning_rate=0.5,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        optim="sgd",
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = MultimodalTrainer(
        model=model,
        args=args,
        train_dataset=SingleImageConvDataset(dataset, processor),
        family=family,
        processor=processor,
    )
    return trainer


def step(trainer):
    """The logged loss and all parameters after one SGD step: parameters show the gradient."""
    trainer.train()
    loss = next(row["loss"] for row in trainer.state.log_history if "loss" in row)
    return loss, {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def predictions(trainer, folder, sizes):
    family, processor = trainer.family, trainer.processing_class
    for size in sizes:
        rec = DATASETS.build({**tiny.REC, "count": size})
        dataset = SingleImageConvDataset(rec, processor, mode="generate")
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        generator = Generator(model, family, processor, trainer.accelerator, 2, 0, {"max_new_tokens": 12})
        records = predict(generator, dataset, folder / f"n{size}_predictions.jsonl", "test", {})
        assert len(records) == size


def main():
    folder, batch, accumulation, items = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    sizes = [int(one) for one in sys.argv[5].split(",")] if len(sys.argv) > 5 else []
    trainer = build(folder, batch, accumulation, items)
    predictions(trainer, folder, sizes)
    loss, parameters = step(trainer)
    if trainer.is_world_process_zero():
        torch.save(parameters, folder / "parameters.pt")
        (folder / "job.json").write_text(json.dumps({"loss": loss, "world_size": trainer.args.world_size}))


if __name__ == "__main__":
    main()
