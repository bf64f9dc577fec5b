"""What must be as it was for a run to go on as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.errors import CheckpointError, ConfigError, DataError
from mllm.pipeline.assemble import batch_of_a_step, total_steps
from mllm.utils.files import read_json


def check_resume(checkpoint: str | None, trainer: Any, *, may_be_done: bool) -> None:
    """CheckpointError if ``checkpoint`` is no trainer checkpoint or, unless it ``may_be_done``, nothing is left."""
    if checkpoint is None:
        return
    state = Path(checkpoint) / "trainer_state.json"
    if not state.is_file():
        raise CheckpointError(
            f"resume_from_checkpoint: {checkpoint!r} has no trainer_state.json; give a checkpoint-N folder"
        )
    try:
        done = json.loads(state.read_text())["global_step"]
    except (json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{state}: broken ({error}); resume from an earlier checkpoint") from error
    total = total_steps(trainer)
    if done >= total and not may_be_done:
        raise CheckpointError(
            f"{checkpoint!r} is at step {done} and the run ends at step {total}: nothing would be trained; "
            "raise num_train_epochs or max_steps, or leave out do_train"
        )
    _check_batch(Path(checkpoint).parent / "run.json", trainer)


def _check_batch(run_file: Path, trainer: Any) -> None:
    """ConfigError if a step would not be what a step was."""
    if not run_file.is_file():
        return
    before, args = read_json(run_file), trainer.args
    now = batch_of_a_step(args)
    if before.get("batch_of_a_step") not in (None, now):
        raise ConfigError(
            f"{run_file.parent} was trained with {before['batch_of_a_step']} samples a step on {before['world_size']} "
            f"processes; now {args.world_size} processes x per_device_train_batch_size="
            f"{args.per_device_train_batch_size} x gradient_accumulation_steps={args.gradient_accumulation_steps} make "
            f"{now}: change these so that the product is the same, or start anew with --init_from"
        )
    if trainer.is_deepspeed_enabled and before["world_size"] != args.world_size:
        raise ConfigError(
            f"{run_file.parent} was trained on {before['world_size']} processes, now there are {args.world_size}: "
            "DeepSpeed's checkpoints hold a piece for each process; start as many, or start anew with --init_from"
        )


def check_same_data(run_file: Path, data: Mapping[str, Any]) -> None:
    """DataError if the training data are not those of the run that ``run_file`` tells of."""
    before = read_json(run_file).get("data", {}).get("train") if run_file.is_file() else None
    now = data.get("train")
    if before is None or now is None:
        return
    known = {one["sha256"]: one["path"] for one in before["files"]}
    changed = [one["path"] for one in now["files"] if one["sha256"] not in known]
    if changed or len(known) != len({one["sha256"] for one in now["files"]}) or before["rows"] != now["rows"]:
        what = f"{changed[0]} is not the file that it was" if changed else "there are other files or rows"
        raise DataError(
            f"the training data have changed since {run_file.parent} was started: {what} ({before['rows']} rows then, "
            f"{now['rows']} now); steps that are done would not be those of a whole run: put the data back, or say "
            "--allow_changed_data"
        )
