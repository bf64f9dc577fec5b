"""What clusters do to a run: after each fault one clear message, and a resumed run that ends as an unbroken one."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from launch import checked, run, run_two
from PIL import Image
from safetensors.torch import load_file

from mllm.errors import ConfigError
from mllm.pipeline import finetune
from mllm.pipeline.resuming import check_resume
from mllm.utils.program import run_main

JOB = Path(__file__).with_name("fault_job.py")
TRAINING = {
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 1,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
}
# Dies in the process that loads data, once: the second run finds the file.
PLUGIN = """
import os, signal
from pathlib import Path
from torch.utils.data import get_worker_info
from mllm.dataset.drawn import DrawnREC
from mllm.registry import DATASETS

@DATASETS.register_module()
class MortalREC(DrawnREC):
    def __init__(self, flag, **options):
        super().__init__(**options)
        self.flag = Path(flag)

    def item(self, index, epoch=0):
        if get_worker_info() is not None and index == 9 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().item(index, epoch)
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the processes of launch.py: sums of several threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "c.py"
    path.write_text(tiny.config_text("unset", training_args=TRAINING))
    return path


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The weights of the run that nothing befell."""
    folder = tmp_path_factory.mktemp("whole")
    assert finetune_here(config, "--output_dir", folder) == 0
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def whole_of_two(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole_of_two")
    checked(run_two([JOB, "none", config, "--output_dir", folder, "--per_device_train_batch_size", 2]))
    return load_file(folder / "model.safetensors")


def same(folder, weights):
    found = load_file(folder / "model.safetensors")
    return found.keys() == weights.keys() and all(torch.equal(found[name], one) for name, one in weights.items())


def sentences(done):
    """The lines of the program itself: neither progress bars nor the launcher's."""
    return [line for line in re.split(r"[\r\n]", done.stderr) if line.startswith("finetune.py")]


def finetune_here(*words):
    """finetune.py in this process: nothing befalls it."""
    return run_main(finetune.main, [str(word) for word in words], name="finetune.py")


def resumed(config, folder, *words):
    assert finetune_here(config, "--output_dir", folder, "--resume_from_checkpoint", "auto", *words) == 0


def resumed_by_two(config, folder):
    words = ["--output_dir", folder, "--resume_from_checkpoint", "auto", "--per_device_train_batch_size", 2]
    checked(run_two([JOB, "none", config, *words]))


def killed_while_saving(config, folder, at):
    done = run([JOB, f"save:{at}", config, "--output_dir", folder])
    if done.returncode == 0:
        return False
    assert done.returncode == -9
    return True


def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(config, whole, tmp_path, capsys):
    assert killed_while_saving(config, tmp_path, 9)
    assert (tmp_path / "checkpoint-2" / "checkpoint-is-incomplete.txt").is_file()
    resumed(config, tmp_path)
    assert (
        "checkpoint-2 is incomplete, its run was stopped while it was written: it is skipped" in capsys.readouterr().err
    )
    assert same(tmp_path, whole)
    assert not list(tmp_path.glob("checkpoint-*/checkpoint-is-incomplete.txt"))


@pytest.mark.slow
def test_a_run_may_be_killed_at_any_file_of_a_save(config, whole, tmp_path):
    at = 1
    while killed_while_saving(config, tmp_path / str(at), at):
        resumed(config, tmp_path / str(at))
        assert same(tmp_path / str(at), whole), at
        at += 1
    assert at > 12  # weights, optimiser, scheduler, random states, tokenizer and processor, each written at its turn


def test_sigterm_saves_and_ends_with_a_code_of_its_own(config, whole, tmp_path):
    done = run([JOB, "term:0", config, "--output_dir", tmp_path])
    assert done.returncode == 75, done.stderr
    (told,) = sentences(done)
    assert told.startswith("finetune.py: stopped by a signal at step 2 of 4")
    assert "--resume_from_checkpoint auto" in told
    assert not (tmp_path / "model.safetensors").exists()
    resumed(config, tmp_path)
    assert same(tmp_path, whole)


def test_a_signal_that_only_one_of_two_ranks_hears_stops_both_at_the_same_step(config, whole_of_two, tmp_path):
    two = ["--per_device_train_batch_size", 2]
    done = run_two([JOB, "term:1", config, "--output_dir", tmp_path, *two])
    assert done.returncode != 0
    assert [line for line in sentences(done) if "stopped by a signal at step 2 of 4" in line]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-2/rng_state_*")) == [
        "rng_state_0.pth",
        "rng_state_1.pth",
    ]
    resumed_by_two(config, tmp_path)
    assert same(tmp_path, whole_of_two)


def test_a_killed_rank_ends_the_other_with_a_sentence(config, whole_of_two, tmp_path):
    done = run_two([JOB, "kill:1", config, "--output_dir", tmp_path, "--per_device_train_batch_size", 2])
    assert done.returncode != 0
    told = " ".join(sentences(done))
    assert "another process of this run has died" in told
    assert "--resume_from_checkpoint auto goes on from" in told
    assert "checkpoint-1" in told
    resumed_by_two(config, tmp_path)
    assert same(tmp_path, whole_of_two)


def test_another_number_of_samples_a_step_is_refused(config, tmp_path, capsys):
    assert finetune_here(config, "--output_dir", tmp_path) == 0
    words = [config, "--output_dir", tmp_path, "--resume_from_checkpoint", "--max_steps", 6]
    capsys.readouterr()
    assert finetune_here(*words, "--per_device_train_batch_size", 8) == 1
    told = capsys.readouterr().err
    assert "was trained with 4 samples a step on 1 processes; now 1 processes x" in told
    assert finetune_here(*words, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2) == 0


def test_deepspeeds_pieces_are_refused_on_another_number_of_processes(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "trainer_state.json").write_text('{"global_step": 1}')
    (tmp_path / "run.json").write_text('{"world_size": 4, "batch_of_a_step": 8}')
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    args = SimpleNamespace(world_size=2, max_steps=5, **sizes)
    trainer = SimpleNamespace(args=args, is_deepspeed_enabled=False)
    check_resume(str(tmp_path / "checkpoint-1"), trainer, may_be_done=False)
    trainer.is_deepspeed_enabled = True
    with pytest.raises(ConfigError, match="was trained on 4 processes, now there are 2: DeepSpeed's checkpoints"):
        check_resume(str(tmp_path / "checkpoint-1"), trainer, may_be_done=False)


@pytest.mark.parametrize("file", ["optimizer.pt", "model.safetensors"])
def test_a_full_disk_is_one_sentence_and_leaves_what_was_whole(config, whole, tmp_path, file):
    folder = tmp_path / "run"
    assert finetune_here(config, "--output_dir", folder, "--max_steps", 1) == 0
    sizes = sorted(path.stat().st_size for path in (folder / "checkpoint-1").iterdir())
    limit = sizes[{"optimizer.pt": -1, "model.safetensors": -2}[file]] - 1
    done = run([JOB, f"full:{limit}", config, "--output_dir", folder, "--resume_from_checkpoint"])
    assert done.returncode == 1
    (told,) = sentences(done)
    assert re.search(r"checkpoint-2 could not be written: the (file is too large|disk is full, or gone);", told), told
    assert "the complete checkpoints before it are as they were" in told
    assert not (folder / "checkpoint-2").exists()
    resumed(config, folder)
    assert same(folder, whole)


def test_a_process_that_loads_data_and_dies_is_named(tmp_path):
    (tmp_path / "mortal.py").write_text(PLUGIN)
    train = {**tiny.REC, "type": "MortalREC", "count": 16, "flag": str(tmp_path / "dead")}
    training = {**TRAINING, "dataloader_num_workers": 1, "dataloader_prefetch_factor": 1}
    text = tiny.config_text(tmp_path / "out", training_args=training, data_args={"train": train})
    (tmp_path / "c.py").write_text(text + "custom_imports = dict(imports=['mortal'])\n")
    done = run([JOB, "none", tmp_path / "c.py"])
    assert done.returncode == 1
    (told,) = sentences(done)
    assert re.search(r"a process that loads data (was killed \(Killed\)|has died), often for want of memory", told)
    assert "lower dataloader_num_workers" in told
    checked(run([JOB, "none", tmp_path / "c.py", "--resume_from_checkpoint", "auto"]))
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["global_step"] == 4


def test_data_that_changed_between_two_runs_are_refused_unless_allowed(tmp_path, capsys):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    rows = tmp_path / "rows.jsonl"

    def write(answers):
        turns = [[{"from": "human", "value": "<image> what ?"}, {"from": "gpt", "value": answer}] for answer in answers]
        lines = [json.dumps({"image": "a.png", "conversations": one}) + "\n" for one in turns]
        rows.write_text("".join(lines))

    write(["one", "two", "three", "four"])
    data = {"train": {"type": "ItemJsonl", "path": str(rows), "image_root": str(tmp_path)}}
    (tmp_path / "c.py").write_text(tiny.config_text(tmp_path / "out", training_args=TRAINING, data_args=data))
    assert finetune_here(tmp_path / "c.py") == 0
    before = (tmp_path / "out" / "run.json").read_text()
    write(["one", "two", "three", "FOUR"])
    words = [tmp_path / "c.py", "--resume_from_checkpoint", "auto", "--max_steps", 6]
    capsys.readouterr()
    assert finetune_here(*words) == 1
    told = capsys.readouterr().err
    assert "the training data have changed since" in told
    assert "rows.jsonl is not the file that it was (4 rows then, 4 now)" in told
    assert "--allow_changed_data" in told
    assert (tmp_path / "out" / "run.json").read_text() == before
    assert finetune_here(*words, "--allow_changed_data") == 0


def test_a_job_that_is_requeued_after_its_last_step_does_what_is_left(config, whole, tmp_path):
    assert finetune_here(config, "--output_dir", tmp_path) == 0
    (tmp_path / "model.safetensors").unlink()
    resumed(config, tmp_path, "--do_predict", "true")
    assert same(tmp_path, whole)
    assert len((tmp_path / "test_predictions.jsonl").read_text().splitlines()) == tiny.REC["count"]


def test_loaders_that_outlive_their_epoch_do_not_keep_the_run_from_ending(config, tmp_path):
    workers = ["--dataloader_num_workers", 1, "--dataloader_persistent_workers", "true"]
    done = checked(run([JOB, "none", config, "--output_dir", tmp_path / "one", *workers], timeout=120))
    assert "Traceback" not in done.stderr
    checked(run_two([JOB, "none", config, "--output_dir", tmp_path / "two", *workers], timeout=120))
