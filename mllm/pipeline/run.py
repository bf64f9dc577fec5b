"""A run: the objects that the config names, and what each ``do_…`` flag does with them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from mllm.config import dump_config
from mllm.config.checks import UNFINISHED
from mllm.engine.combinations import check_combination
from mllm.engine.log_line import write_lines
from mllm.engine.mirror import mirror_checkpoints
from mllm.engine.predict import Generator
from mllm.engine.run_folder import fingerprint, write_json, write_results, write_run_file
from mllm.engine.samples import SamplePages
from mllm.engine.second_pass import check_second_pass
from mllm.engine.sharded import model_to_generate
from mllm.engine.steps import run_steps
from mllm.engine.together import SharedError, on_main
from mllm.engine.trackers import Trackers
from mllm.engine.trainer import MultimodalTrainer
from mllm.errors import ConfigError, DataError
from mllm.evaluation.report import Section, write_report
from mllm.models.build import build_family
from mllm.models.tuning import Tuning, format_report, trainable_report
from mllm.pipeline.assemble import (
    batch_of_a_step,
    blanked,
    choose_best_metric,
    evaluation_set,
    generation_options,
    needs_validation,
    total_steps,
    train_dataset,
)
from mllm.pipeline.resuming import check_resume, check_same_data
from mllm.pipeline.sources import source_table, source_uses
from mllm.pipeline.table import score_table
from mllm.utils.logging import get_logger, log_on_main

logger = get_logger(__name__)


class Run:
    """Builds everything before the first step, so that a wrong config stops before anything is computed or written."""

    def __init__(self, cfg: Any, args: Any) -> None:
        self.cfg, self.args = cfg, args
        self.folder = Path(args.output_dir)
        self.sections: list[Section] = []
        self.failed: dict[str, str] = {}
        self.goes_on: bool | None = None
        data_args = cfg.get("data_args", {})
        set_seed(args.seed)
        self.trackers = Trackers(args, cfg)
        self.family = build_family(cfg["model_args"])
        self.processor = self.family.build_processor(cfg.get("conversation", {}), cfg.get("generation"))
        self.options = generation_options(cfg, self.processor)
        train = train_dataset(data_args, self.processor, args.seed) if args.do_train else None
        self.validation = (
            self._set("validation", data_args.get("validation"), "data_args.validation")
            if needs_validation(args)
            else None
        )
        self.test = self._set("test", data_args.get("test"), "data_args.test") if args.do_predict else None
        self.multitest = self._multitest(data_args) if args.do_multi_predict else {}
        self.blind = blanked(self._test_sets(), self.processor) if args.blind_test else {}
        choose_best_metric(args, self.validation)
        tuning = Tuning.from_config(cfg.get("tune"))
        check_combination(args, tuning)
        self.model = self.family.build_model(self.processor, tuning, args.init_from)
        if args.do_train and not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ConfigError("nothing is trained: tune stops the gradient of every part; leave one out of tune.freeze")
        if self.options.get("second_pass"):
            check_second_pass(self.options["second_pass"], self.model)
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
        self._listen()
        self.mirror = mirror_checkpoints(self.trainer)
        on_main(self.trainer.accelerator, self._start_folder)

    def _listen(self) -> None:
        """Log lines, trackers and sample pages of the trainer; a checkpoint that cannot be gone on with stops here."""
        args, cfg = self.args, self.cfg
        write_lines(self.trainer)
        self.trackers.attach(self.trainer)
        if args.do_train and self.validation and args.sample_count:
            pages = self.folder / "samples", self.validation.dataset, self._generator, args.sample_count
            self.trainer.add_callback(SamplePages(*pages, args.sample_steps))
        if args.resume_from_checkpoint:
            args.eval_on_start = False
        if args.do_train:
            asked = cfg.get("training_args", {}).get("resume_from_checkpoint")
            check_resume(args.resume_from_checkpoint, self.trainer, may_be_done=asked == "auto")

    def train(self) -> None:
        """Train, save the model with all that inference needs, write ``train_results.json``."""
        logger.info("what is trained:\n%s", format_report(trainable_report(self.model, self.family)))
        if self.trainer.is_world_process_zero():
            samples = self.trainer.train_dataset
            epochs = total_steps(self.trainer) * batch_of_a_step(self.args) / len(samples)
            logger.info("what it is trained on:\n%s", source_table(source_uses(samples, epochs)))
        result = run_steps(self.trainer, self.args.resume_from_checkpoint)
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
        self._predict_sets({"test": self.test})

    def multi_predict(self) -> None:
        """Generate for every named test set and score it."""
        self._predict_sets({name: one for name, one in self._test_sets().items() if name != "test"})

    def finish(self) -> None:
        """Write the report and print the score table; DataError that names the sets that failed."""
        if self.trainer.is_world_process_zero():
            if self.sections:
                self._write_report()
                sys.stdout.write(score_table(self.sections) + f"\nreport: {self.folder / 'report.html'}\n")
            if self.goes_on is not None and not self.failed:
                (self.folder / UNFINISHED).unlink(missing_ok=True)
        self.trackers.finish(failed=bool(self.failed))
        self.trainer.accelerator.wait_for_everyone()
        self.trainer.accelerator.end_training()
        if self.mirror:
            self.mirror.finish()
        if self.failed:
            told = "; ".join(f"{name}: {error}" for name, error in self.failed.items())
            count = len(self._test_sets()) + len(self.blind)
            raise DataError(f"{len(self.failed)} of {count} sets failed: {told}")

    def _predict_sets(self, sets: Mapping[str, Any]) -> None:
        """Each set's files and the report are written when it is done; one that fails is named, the others go on."""
        if self.goes_on is None:
            self.goes_on = on_main(self.trainer.accelerator, self._begin_predictions)
        blind = {name: one for name, one in self.blind.items() if name.removesuffix("_blind") in sets}
        for name, one in {**sets, **blind}.items():
            try:
                metrics = self._run_set(one, name, keep=self.goes_on)
            except SharedError as error:
                self.failed[name] = str(error)
                log_on_main(logger, "%s failed: %s", name, error)
                continue
            if self.trainer.is_world_process_zero():
                write_results(self.folder, name, metrics)
                self._write_report()
                self.trackers.log(metrics, self.trainer.state.global_step)

    def _begin_predictions(self) -> bool:
        """Whether an earlier run was killed before all sets were done; from now on this one would be."""
        marker = self.folder / UNFINISHED
        before = marker.is_file()
        write_json(marker, {"sets": [*self._test_sets(), *self.blind]})
        return before

    def _write_report(self) -> None:
        title = f"{Path(self.cfg.filename).stem if self.cfg.filename else 'run'}: {self.folder}"
        _keep_one_gallery(self.sections)
        write_report(self.folder / "report.html", title, self.sections, self.trainer.state.log_history)

    def _evaluate(self, prefix: str) -> dict[str, float]:
        step = self.trainer.state.global_step
        name = "validation" if not self.args.do_train else f"validation, step {step}"
        self.sections = [section for section in self.sections if section.name != name]
        return self._run_set(self.validation, prefix, name)

    def _run_set(self, one: Any, prefix: str, name: str | None = None, *, keep: bool = False) -> dict[str, float]:
        generator = replace(self._generator(), seed=self.args.seed)
        metrics, sections = one.run(generator, self.folder, prefix, self.trainer.notes, keep=keep)
        for section in sections:
            section.name = name or section.name
        self.sections += sections
        return metrics

    def _generator(self) -> Generator:
        accelerator, args = self.trainer.accelerator, self.args
        return Generator(
            model=model_to_generate(self.trainer),
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

    def _test_sets(self) -> dict[str, Any]:
        """By the prefix of their files."""
        named = {f"multitest_{name}": one for name, one in self.multitest.items()}
        return {"test": self.test, **named} if self.test else named

    def _start_folder(self) -> None:
        """Write what the run is made of, on the main process; an error there ends every rank."""
        named = {"validation": self.validation, "test": self.test}
        named |= {f"multitest_{name}": one for name, one in self.multitest.items()}
        datasets = {name: one.dataset.dataset for name, one in named.items() if one is not None}
        if self.trainer.train_dataset is not None:
            datasets["train"] = self.trainer.train_dataset.dataset
        data = {name: fingerprint(dataset) for name, dataset in datasets.items()}
        if self.args.resume_from_checkpoint and not self.args.allow_changed_data:
            check_same_data(Path(self.args.resume_from_checkpoint).parent / "run.json", data)
        self.folder.mkdir(parents=True, exist_ok=True)
        dump_config(self.cfg, self.folder / "config.py")
        write_run_file(self.folder, data=data, args=self.args)
        write_json(self.folder / "training_args.json", self.args.to_dict())


def _keep_one_gallery(sections: list[Section]) -> None:
    shown = next((section for section in sections if section.name == "test"), sections[-1])
    for section in sections:
        if section is not shown:
            section.image_of = None
