"""Jobs of ``mllm submit`` under a real Slurm of two nodes: one node, two nodes, an array, a preemption."""

import contextlib
import io
import json
import re
from types import SimpleNamespace

import pytest
import tiny
import torch
from safetensors.torch import load_file

from mllm.cli.main import main

STEPS = 6
TRAINING = {"max_steps": STEPS, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 100}
# Drawn items; the second epoch, which begins with the fifth of six steps, waits for the file ``go``.
PLUGIN = """
import time
from pathlib import Path

from mllm.dataset.drawn import DrawnREC
from mllm.registry import DATASETS

@DATASETS.register_module()
class StallingREC(DrawnREC):
    def __init__(self, folder, **options):
        super().__init__(**options)
        self.folder = Path(folder)

    def item(self, index, epoch=0):
        if epoch == 1:
            (self.folder / "reached").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.05)
        return super().item(index, epoch)
"""


@pytest.fixture(scope="module")
def place(slurm, tmp_path_factory):
    """A folder with configs from which jobs are submitted."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "stalling_plugin.py").write_text(PLUGIN)
    for name, waits_in in (("plain", "never"), ("stalling", ".")):
        data = {"train": {**tiny.REC, "count": 16, "type": "StallingREC", "folder": waits_in}}
        text = tiny.config_text(f"work_dirs/{name}", training_args=TRAINING, data_args=data)
        (folder / f"{name}.py").write_text(f"custom_imports = dict(imports=['stalling_plugin'])\n{text}")
    (folder / "never").mkdir()
    (folder / "never" / "go").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def submitted(*words):
    """The number of the job."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["submit", *map(str, words)]) == 0
    return re.match(r"submitted job (\d+) ", said.getvalue()).group(1)


@pytest.fixture(scope="module")
def jobs(place):
    """One node and one process; two nodes with a process each and the same samples a step; an array over seeds."""
    array = ["--array", "seed=3,4", "--", "--max_steps", 1]
    return SimpleNamespace(
        one=submitted("plain.py", "--processes", 1),
        two=submitted("plain.py", "--name", "two", "-N", 2, "--processes", 1, "--", "--per_device_train_batch_size", 2),
        array=submitted("plain.py", "--name", "seeds", "--processes", 1, *array),
    )


def trained(folder):
    """Weights and losses of a run that came to its end."""
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["global_step"] == STEPS
    losses = [row["loss"] for row in state["log_history"] if "loss" in row]
    return load_file(folder / "model.safetensors"), losses


def assert_same_training(first, second):
    (ours, losses), (theirs, others) = trained(first), trained(second)
    assert others == pytest.approx(losses, abs=1e-3)
    assert losses[0] - losses[-1] > 0.05
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_one_node_trains_and_keeps_script_and_log(slurm, place, jobs):
    folder = place / "work_dirs" / "plain"
    log = folder / f"slurm-{jobs.one}.log"
    assert slurm.ended(jobs.one, log) == "COMPLETED"
    trained(folder)
    assert log.read_text().count("] done") == 1
    assert (folder / "submit.sh").read_text().startswith("#!/bin/bash\n# mllm submit plain.py --processes 1\n")
    assert slurm.job(jobs.one)["JobName"] == "plain"


def test_two_nodes_train_together_as_one(slurm, place, jobs):
    log = place / "work_dirs" / "two" / f"slurm-{jobs.two}.log"
    assert slurm.ended(jobs.two, log) == "COMPLETED"
    assert slurm.job(jobs.two)["NumNodes"] == "2"
    assert slurm.ended(jobs.one) == "COMPLETED"
    assert json.loads((log.parent / "run.json").read_text())["world_size"] == 2
    assert_same_training(place / "work_dirs" / "plain", log.parent)


def test_an_array_trains_each_seed_in_its_folder(slurm, place, jobs):
    root = place / "work_dirs" / "seeds"
    for number, seed in enumerate((3, 4)):
        log = root / f"slurm-{jobs.array}_{number}.log"
        slurm.array_ended(jobs.array, number, log)
        assert f"seed={seed} -> work_dirs/seeds/seed={seed}" in log.read_text()
        args = json.loads((root / f"seed={seed}" / "training_args.json").read_text())
        assert (args["seed"], args["run_name"]) == (seed, f"seeds/seed={seed}")
    first, second = (load_file(root / f"seed={seed}" / "model.safetensors") for seed in (3, 4))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def preempted(slurm, place, name, number, nodes):
    """Take the nodes of a job that is held up in the middle away, and see it end after it was started again."""
    log = place / "work_dirs" / name / f"slurm-{number}.log"
    said = lambda: log.read_text() if log.exists() else ""  # noqa: E731
    slurm.until(lambda: (place / "reached").exists(), said)
    nodelist = slurm.job(number)["NodeList"]
    urgent = slurm.call(
        "sbatch",
        "--parsable",
        "-p",
        "urgent",
        "--exclusive",
        "-N",
        nodes,
        "-w",
        nodelist,
        "-o",
        "/dev/null",
        "--wrap",
        "true",
    )
    slurm.until(lambda: "asked to stop" in said(), said)
    (place / "go").touch()
    assert slurm.ended(urgent.strip()) == "COMPLETED"
    assert slurm.ended(number, log) == "COMPLETED"
    assert slurm.job(number)["Restarts"] == "1"
    return log


@pytest.mark.parametrize(("nodes", "name"), [(1, "pair"), pytest.param(2, "pair_of_nodes", marks=pytest.mark.slow)])
def test_a_preempted_job_saves_resumes_and_ends_with_the_weights_of_one_left_alone(slurm, place, jobs, nodes, name):
    for left in ("reached", "go"):
        (place / left).unlink(missing_ok=True)
    processes = 2 // nodes
    words = ["--per_device_train_batch_size", 2]
    number = submitted("stalling.py", "--name", name, "-N", nodes, "--processes", processes, "-c", 2, "--", *words)
    log = preempted(slurm, place, name, number, nodes)
    text = log.read_text()
    (stopped,) = {int(step) for step in re.findall(r"stopped by a signal at step (\d+) of", text)}
    assert 0 < stopped < STEPS
    assert (log.parent / f"checkpoint-{stopped}").is_dir()
    assert text.count("back to the queue") == 1
    assert "restart 1: " in text
    assert_same_training(place / "work_dirs" / "plain", log.parent)


def test_a_second_job_for_the_same_folder_is_refused(slurm, place, capsys):
    held = slurm.call("sbatch", "--parsable", "--hold", "-J", "plain", "-o", "/dev/null", "--wrap", "true").strip()
    assert main(["submit", "plain.py", "--processes", "1"]) == 2
    assert f"job {held} is called 'plain' and still there" in capsys.readouterr().err
    slurm.call("scancel", held)


def test_what_slurm_refuses_is_told_in_its_words(slurm, place, capsys):
    assert main(["submit", "plain.py", "--processes", "1", "--name", "nowhere", "--partition", "nope"]) == 1
    assert "sbatch refused: " in (said := capsys.readouterr().err)
    assert "nvalid partition" in said


@pytest.mark.slow
def test_a_sweep_runs_its_trials_as_an_array_and_chooses_by_their_scores(slurm, place):
    """Both trials train nothing to speak of: the first of two equal ones is the best; a third cannot be built."""
    training = {"max_steps": 1, "do_eval": True, "sample_count": 0}
    (place / "swept.py").write_text(tiny.config_text("work_dirs/swept", training_args=training))
    counts = "data_args.train.count=4,8,0"  # no data set of no rows
    words = ["--array", counts, "--jobs", "slurm", "--processes", "1", "--parallel", "2", "--name", "swept"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mllm.pipeline.cluster.runners.Slurm.poll", 0.5)
        assert main(["sweep", "swept.py", *words]) == 0
    folder = place / "work_dirs" / "swept"
    rows = {row["number"]: row for row in map(json.loads, (folder / "trials.jsonl").read_text().splitlines())}
    assert [rows[number]["state"] for number in range(3)] == ["finished", "finished", "failed"]
    assert "count=0" in rows[2]["reason"]
    assert {row["job"].partition("_")[2] for row in rows.values()} == {"0", "1", "2"}
    assert json.loads((folder / "best.json").read_text())["trial"] == 0
