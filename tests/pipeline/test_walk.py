"""The whole run through the script, as a user starts it."""

import json

import pytest
import tiny
from launch import FINETUNE, checked, run, run_two

RUN_FILES = ("config.py", "run.json", "trainer_state.json", "training_args.json", "all_results.json", "report.html")
EVAL_FILES = ("predictions.jsonl", "scores.jsonl", "manifest.json", "results.json")


def _config(folder, name="c.py", **options):
    path = folder / name
    path.write_text(tiny.config_text(folder / "out", **options))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    training = {"do_eval": True, "do_predict": True, "do_multi_predict": True, "eval_on_start": True}
    rec_set = {"dataset": {**tiny.REC, "count": 5, "split": "other"}, "evaluators": tiny.EVALUATORS}
    config = _config(folder, training_args=training, data_args={"multitest": {"a": rec_set, "b": rec_set}})
    # The config stands in the middle of the line; a flag beats the option, the option beats the file.
    words = ["--max_steps", 3, config, "--cfg-options", "training_args.max_steps=9", "generation.max_new_tokens=4"]
    done = checked(run([FINETUNE, *words]))
    return folder / "out", done


def test_the_run_folder_is_complete(finished):
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert set(RUN_FILES) <= names
    for prefix in ("eval", "test", "multitest_a", "multitest_b"):
        assert {f"{prefix}_{name}" for name in EVAL_FILES} <= names
    assert {"model.safetensors", "tokenizer.json", "mllm_processor.json", "train_results.json"} <= names
    assert not [name for name in names if name.endswith(".part")]


def test_flags_beat_options_and_options_beat_the_file(finished):
    folder, _ = finished
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["global_step"] == 3
    assert json.loads((folder / "test_manifest.json").read_text())["generation"]["max_new_tokens"] == 4
    evaluated = [row["step"] for row in state["log_history"] if "eval_acc@0.5" in row]
    assert evaluated == [0, 3]  # before and after training


def test_the_table_shows_every_set(finished):
    _, done = finished
    table = done.stdout[done.stdout.index("set ") :]
    for name in ("validation, step 0", "validation, step 3", "test", "a", "b"):
        assert f"\n{name}" in table


def test_the_predictions_are_records_with_truth(finished):
    folder, _ = finished
    rows = [json.loads(line) for line in (folder / "multitest_a_predictions.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(5))
    assert {"index", "id", "pred", "target", "truth", "frames", "meta"} <= set(rows[0])
    assert len(rows[0]["truth"]["boxes"][0]) == 4
    assert json.loads((folder / "all_results.json").read_text())["multitest_a_samples"] == 5


def test_the_result_can_be_predicted_with_and_prompts_stay_the_same(finished, tmp_path):
    folder, _ = finished
    words = [folder / "config.py", "--do_train", "false", "--do_eval", "false", "--do_multi_predict", "false"]
    words += ["--output_dir", tmp_path / "again", "--eval_on_start", "false"]
    options = [
        "--cfg-options",
        f"+model_args.pretrained={folder}",
        "model_args.config=None",
        "model_args.tokenizer=None",
    ]
    checked(run([FINETUNE, *words, *options]))
    first, again = ((one / "test_predictions.jsonl").read_text() for one in (folder, tmp_path / "again"))
    assert first == again


def _losses(folder):
    state = json.loads((folder / "trainer_state.json").read_text())
    return {row["step"]: row["loss"] for row in state["log_history"] if "loss" in row}


RESUME = {"max_steps": 7, "save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 3}
RESUME |= {"metric_for_best_model": "mean_iou", "greater_is_better": True, "gradient_accumulation_steps": 2}
RESUME |= {"muon_lr": 1e-3}
RESUME |= {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "per_device_train_batch_size": 1}

# Ten items of a mixture whose rows change from epoch to epoch.
PARTS = [{**tiny.REC, "count": 6, "split": "a"}, {"type": "RepeatDataset", "dataset": tiny.REC, "times": 1.5}]
MIXTURE = {"type": "SubsetDataset", "count": 10, "dataset": {"type": "InterleaveDataset", "datasets": PARTS}}
MIXTURE["dataset"]["stopping"] = "all_exhausted"


@pytest.mark.parametrize(("start", "name"), [(run, "one"), (run_two, "two")])
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, start, name):
    """Three epochs of 10 items in steps of 2 (or 4 on two processes): the stop at step 3 lies within an epoch."""
    config = _config(tmp_path, training_args=RESUME, data_args={"train": MIXTURE})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    checked(start([FINETUNE, config, "--output_dir", whole]))
    # The first part is cut off at step 3 by the scheduler's full length: the same rates, then a stop.
    stop = tmp_path / "stop_at_three.py"
    stop.write_text(STOP_AT_THREE)
    checked(start([stop, config, "--output_dir", parts]))
    assert max(_losses(parts / "checkpoint-3")) == 3
    checked(start([FINETUNE, config, "--output_dir", parts, "--resume_from_checkpoint", parts / "checkpoint-3"]))
    expected, resumed = _losses(whole), _losses(parts)
    assert sorted(expected) == list(range(1, 8))
    assert resumed == pytest.approx(expected, abs=1e-6)
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (whole, parts)]
    assert states[0]["best_metric"] == states[1]["best_metric"] is not None


STOP_AT_THREE = """
import sys
from transformers import TrainerCallback
from mllm.engine import trainer
from mllm.pipeline import finetune
from mllm.utils.program import run_main

class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= 3
        return control

class Stopped(trainer.MultimodalTrainer):
    def __init__(self, **options):
        super().__init__(**options)
        self.add_callback(Stop())

import mllm.pipeline.run as run
run.MultimodalTrainer = Stopped
sys.exit(run_main(finetune.main))
"""


def test_predictions_of_two_processes_equal_those_of_one(finished, tmp_path):
    folder, _ = finished
    words = [folder / "config.py", "--do_train", "false", "--do_eval", "false", "--do_predict", "false"]
    options = [
        "--cfg-options",
        f"+model_args.pretrained={folder}",
        "model_args.config=None",
        "model_args.tokenizer=None",
    ]
    words += ["--output_dir", tmp_path / "two", "--eval_on_start", "false"]
    checked(run_two([FINETUNE, *words, *options]))
    assert json.loads((tmp_path / "two" / "run.json").read_text())["world_size"] == 2
    name = "multitest_b_predictions.jsonl"
    assert (tmp_path / "two" / name).read_text() == (folder / name).read_text()
