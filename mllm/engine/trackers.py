"""The trackers of a run, told the same under the same names; none of them can end it.

Environment: WANDB_PROJECT, TRACKIO_PROJECT and MLFLOW_EXPERIMENT_NAME name the project where ``--project`` does not;
MLLM_GROUP lays the runs of a sweep together.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mllm.engine.tracker_mlflow import MlflowWriter
from mllm.engine.tracker_wandb import WandbWriter
from mllm.engine.tracker_writers import Described, TensorBoardWriter, TrackioWriter, Writer
from mllm.utils.logging import get_logger, log_on_main
from mllm.utils.redact import redact

logger = get_logger(__name__)
WRITERS = {one.name: one for one in (TensorBoardWriter, WandbWriter, TrackioWriter, MlflowWriter)}
PROJECT = "mllm"
_THEIRS = "huggingface"  # transformers' default of `project`
_PARTS = ("eval", "test", "multitest")


class Trackers(TrainerCallback):
    """The trackers that ``args.report_to`` names, begun with the first step or the first row of the log.

    Made before the trainer, so that transformers makes none of its own: those would ask for a key, write into the
    working folder, and log the config unredacted.
    """

    def __init__(self, args: Any, cfg: Any) -> None:
        self.args = args
        self.reported = list(args.report_to)
        args.report_to = [name for name in self.reported if name not in WRITERS]
        args.run_name = args.run_name or run_name(getattr(cfg, "filename", None), args.output_dir)
        if args.project == _THEIRS:
            args.project = PROJECT
        self.waiting: list[Writer] = [WRITERS[name]() for name in self.reported if name in WRITERS]
        self.writers: list[Writer] = []
        self.cfg = cfg

    def attach(self, trainer: Any) -> None:
        """Follow ``trainer``, on the main process alone; ``args.report_to`` is again what the user said."""
        self.args.report_to = self.reported
        if trainer.is_world_process_zero() and self.waiting:
            trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the run in every tracker."""
        self._start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Hand over the row's numbers."""
        self.log(logs or {}, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Hand over the checkpoint to trackers that were asked to take it."""
        self._each("saved", Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        """Numbers under their names in a log, ``eval_acc`` becomes ``eval/acc``; anything else is left out."""
        self._start()
        self._each("log", {tag(name): value for name, value in numbers.items() if _is_number(value)}, step)

    def finish(self, failed: bool = False) -> None:
        """End the run in every tracker; at the latest when the program ends, then as one that failed."""
        self._each("end", failed)
        self.writers = []

    def _start(self) -> None:
        if not self.waiting:
            return
        self.writers, self.waiting = self.waiting, []
        config = tracked_config(self.cfg, self.args)
        for writer in list(self.writers):
            self._call(writer, "start", self._described(writer, config))
        # After the trackers': what is registered last is called first.
        atexit.register(self.finish, failed=True)

    def _described(self, writer: Writer, config: Mapping[str, Any]) -> Described:
        return Described(
            name=self.args.run_name,
            project=project_name(self.args.project, writer.project_from),
            group=os.environ.get("MLLM_GROUP") or None,
            folder=Path(self.args.output_dir),
            config=config,
            is_resumed=bool(self.args.resume_from_checkpoint),
            space=self.args.trackio_space_id,
        )

    def _each(self, action: str, *values: Any) -> None:
        for writer in list(self.writers):
            self._call(writer, action, *values)

    def _call(self, writer: Writer, action: str, *values: Any) -> None:
        """One that fails is left out from then on: whatever a tracker raises, it is not worth the run."""
        try:
            getattr(writer, action)(*values)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            log_on_main(logger, "%s fails and is left out, the run goes on without it: %.400s", writer.name, text)
            self.writers = [one for one in self.writers if one is not writer]


def run_name(config: str | None, output_dir: str) -> str:
    """The config's name and the output folder's; once where they are the same."""
    stem, folder = Path(config).stem if config else "", Path(output_dir).absolute().name
    return "-".join(dict.fromkeys(word for word in (stem, folder) if word)) or "run"


def project_name(asked: str, variable: str) -> str:
    """``--project`` before the tracker's own ``variable`` of the environment before `PROJECT`."""
    return asked if asked != PROJECT else os.environ.get(variable) or PROJECT


def tag(name: str) -> str:
    """``train/loss`` of ``loss``, ``eval/acc`` of ``eval_acc``: what trackers group curves by."""
    part, sign, rest = name.partition("_")
    return f"{part}/{rest}" if sign and part in _PARTS else f"train/{name}"


def tracked_config(cfg: Any, args: Any) -> dict[str, Any]:
    """The resolved config with all training arguments, as plain JSON values without secrets."""
    values = cfg.to_dict() if hasattr(cfg, "to_dict") else dict(cfg)
    whole = {**values, "training_args": args.to_dict(), "world_size": args.world_size}
    return json.loads(json.dumps(redact(whole), default=str))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
