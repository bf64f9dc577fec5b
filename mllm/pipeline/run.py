"""A run: the objects that the config names, and what each ``do_…`` flag does with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from transformers import set_seed

from mllm.config import dump_config
from mllm.engine.predict import Generator
from mllm.engine.run_folder import write_json, write_run_file
from mllm.engine.trainer import MultimodalTrainer
from mllm.evaluation.report import Section, write_report
from mllm.models.build import build_family
from mllm.models.tuning import Tuning, format_report, trainable_report
from mllm.pipeline.assemble import (
    batch_of_a_step,
    check_best_metric,
    check_resume,
    evaluation_set,
    generation_options,
    total_steps,
    train_dataset,
)
from mllm.pipeline.sources import source_table, source_uses
from mllm.pipeline.table import score_table
from mllm.utils.logging import get_logger

logger = get_logger(__name__)


class Run:
    """Builds everything before the first step, so that a wrong config stops before anything is computed or written."""

    def __init__(self, cfg: Any, args: Any) -> None:
        self.cfg, self.args = cfg, args
        self.folder = Path(args.output_dir)
        self.sections: list[Section] = []
        data_args = cfg.get("data_args", {})
        set_seed(args.seed)
        self.family = build_family(cfg["model_args"])
        self.processor = self.family.build_processor(cfg.get("conversation", {}), cfg.get("generation"))
        self.options = generation_options(cfg, self.processor)
        validates = args.do_eval or (args.do_train and (args.eval_on_start or args.eval_strategy != "no"))
        train = train_dataset(data_args, self.processor, args.seed) if args.do_train else None
        self.validation = (
            self._set("validation", data_args.get("validation"), "data_args.validation") if validates else None
        )
        self.test = self._set("test", data_args.get("test"), "data_args.test") if args.do_predict else None
        self.multitest = self._multitest(data_args) if args.do_multi_predict else {}
        check_best_metric(args, self.validation)
        self.model = self.family.build_model(self.processor, Tuning.from_config(cfg.get("tune")))
        self.trainer = MultimodalTrainer(
            model=self.model,
            args=args,
            train_dataset=train,
            # Never iterated: evaluation generates; the Trainer only asks whether there is one.
            eval_dataset=self.validation.dataset if self.validation else None,
            family=self.family,
            processor=self.processor,
            evaluate_with=self._evaluate if self.validation else None,
            error_budget=data_args.get("error_budget"),
        )
        if args.resume_from_checkpoint:
            args.eval_on_start = False
        if args.do_train:
            check_resume(args.resume_from_checkpoint, self.trainer)
        self._start_folder()

    def train(self) -> None:
        """Train, save the model with all that inference needs, write ``train_results.json``."""
        logger.info("what is trained:\n%s", format_report(trainable_report(self.model, self.family)))
        if self.trainer.is_world_process_zero():
            samples = self.trainer.train_dataset
            epochs = total_steps(self.trainer) * batch_of_a_step(self.args) / len(samples)
            logger.info("what it is trained on:\n%s", source_table(source_uses(samples, epochs)))
        result = self.trainer.train(resume_from_checkpoint=self.args.resume_from_checkpoint)
        self.trainer.save_model()
        metrics = {**result.metrics, "train_samples": len(self.trainer.train_dataset)}
        self.trainer.save_metrics("train", metrics)
        self.trainer.save_state()
        if self.trainer.notes.counts and self.trainer.is_world_process_zero():
            write_json(self.folder / "train_notes.json", self.trainer.notes.summary())

    def evaluate(self) -> None:
        """Score the validation set with the weights as they are now."""
        self.trainer.save_metrics("eval", self.trainer.evaluate())
        self.trainer.save_state()

    def predict(self) -> None:
        """Generate for the test set and score it."""
        self.trainer.save_metrics("test", self._run_set(self.test, "test"))

    def multi_predict(self) -> None:
        """Generate for every named test set and score it."""
        for name, one in self.multitest.items():
            self.trainer.save_metrics(f"multitest_{name}", self._run_set(one, f"multitest_{name}"))

    def finish(self) -> None:
        """Write the report and print the score table."""
        if self.sections and self.trainer.is_world_process_zero():
            title = f"{Path(self.cfg.filename).stem if self.cfg.filename else 'run'}: {self.folder}"
            _keep_one_gallery(self.sections)
            write_report(self.folder / "report.html", title, self.sections, self.trainer.state.log_history)
            sys.stdout.write(score_table(self.sections) + f"\nreport: {self.folder / 'report.html'}\n")
        self.trainer.accelerator.wait_for_everyone()
        self.trainer.accelerator.end_training()

    def _evaluate(self, prefix: str) -> dict[str, float]:
        step = self.trainer.state.global_step
        name = "validation" if not self.args.do_train else f"validation, step {step}"
        self.sections = [section for section in self.sections if section.name != name]
        return self._run_set(self.validation, prefix, name)

    def _run_set(self, one: Any, prefix: str, name: str | None = None) -> dict[str, float]:
        metrics, sections = one.run(self._generator(), self.folder, prefix, self.trainer.notes)
        for section in sections:
            section.name = name or section.name
        self.sections += sections
        return metrics

    def _generator(self) -> Generator:
        accelerator, args = self.trainer.accelerator, self.args
        return Generator(
            model=accelerator.unwrap_model(self.trainer.model_wrapped),
            family=self.family,
            processor=self.processor,
            accelerator=accelerator,
            batch_size=args.per_device_eval_batch_size,
            workers=args.dataloader_num_workers,
            options=self.options,
        )

    def _set(self, name: str, cfg: Any, key: str) -> Any:
        return evaluation_set(name, cfg, self.processor, key)

    def _multitest(self, data_args: Any) -> dict[str, Any]:
        named = data_args.get("multitest") or {}
        return {name: self._set(name, cfg, f"data_args.multitest.{name}") for name, cfg in named.items()}

    def _start_folder(self) -> None:
        if self.trainer.is_world_process_zero():
            self.folder.mkdir(parents=True, exist_ok=True)
            dump_config(self.cfg, self.folder / "config.py")
            named = {"validation": self.validation, "test": self.test}
            named |= {f"multitest_{name}": one for name, one in self.multitest.items()}
            datasets = {name: one.dataset.dataset for name, one in named.items() if one is not None}
            if self.trainer.train_dataset is not None:
                datasets["train"] = self.trainer.train_dataset.dataset
            write_run_file(self.folder, datasets=datasets, world_size=self.args.world_size, seed=self.args.seed)
            write_json(self.folder / "training_args.json", self.args.to_dict())
        self.trainer.accelerator.wait_for_everyone()


def _keep_one_gallery(sections: list[Section]) -> None:
    shown = next((section for section in sections if section.name == "test"), sections[-1])
    for section in sections:
        if section is not shown:
            section.image_of = None
