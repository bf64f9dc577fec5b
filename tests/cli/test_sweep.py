"""``mllm sweep``: trials that stand-ins of a training run, what is chosen, stopped early, gone on with, and refused."""

import importlib.util
import json
import os
import random
import shlex
import sys

import pytest
import tiny

from mllm.cli.main import main
from mllm.config.flags import FlagTable
from mllm.config.prepare import argument_fields
from mllm.pipeline.cluster.space import Tpe, parse_space
from mllm.pipeline.cluster.sweep import alone_in
from mllm.pipeline.cluster.trials import Trial, best_of, is_hopeless, why_failed

TABLE = FlagTable(argument_fields().values(), {})
LAUNCHER = f'#!/bin/bash\n{sys.executable} "$STUB" "$@" &\nwait $! || exit 1\n'
# Better the nearer the rate is to 1e-3. What a rate named in "fail" or "stall" does stands in plan.json.
RUN = """
import json, math, os, signal, sys, time
from pathlib import Path
words = sys.argv[1:]
value = lambda name: words[words.index(name) + 1]
folder, rate = Path(value("--output_dir")), value("--learning_rate")
folder.mkdir(parents=True, exist_ok=True)
plan = json.loads(Path("plan.json").read_text())
with open("calls", "a") as calls:
    calls.write(json.dumps([rate, value("--run_name"), os.environ.get("MLLM_GROUP")]) + "\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
good = 1 - abs(math.log10(float(rate)) + 3) / 4
if rate in plan.get("fail", ()):
    sys.exit(print("finetune.py: error: no memory left") or 1)
for step in (0, 10, 20):
    with open(folder / "evaluations.jsonl", "a") as rows:
        rows.write(json.dumps({"step": step, "eval_mean_iou": 0.0 if step == 0 else good * step / 20}) + "\\n")
    while step == 10 and rate in plan.get("stall", ()) and not Path("go").exists():
        time.sleep(0.02)
if rate in plan.get("nan", ()):
    good = math.nan
(folder / "all_results.json").write_text(json.dumps({"eval_mean_iou": good, "eval_acc@0.5": 0.0, "train_loss": good}))
"""
EVALUATES = {"eval_strategy": "steps", "eval_steps": 10, "max_steps": 20}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with a config, and a launcher whose run takes a moment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.py").write_text(tiny.config_text("runs/c", training_args=EVALUATES))
    (tmp_path / "quiet.py").write_text(tiny.config_text("runs/quiet"))
    (tmp_path / "plan.json").write_text("{}")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "accelerate").write_text(LAUNCHER)
    (bin_folder / "accelerate").chmod(0o755)
    (tmp_path / "run_of_stub.py").write_text(RUN)
    monkeypatch.setenv("STUB", str(tmp_path / "run_of_stub.py"))
    monkeypatch.setattr("mllm.pipeline.cluster.scripts.sys.executable", str(bin_folder / "python"))
    monkeypatch.setattr("mllm.pipeline.cluster.runners.Local.poll", 0.02)
    return tmp_path


def calls(shop):
    path = shop / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def states(shop, name="c_sweep"):
    rows = [json.loads(line) for line in (shop / "work_dirs" / name / "trials.jsonl").read_text().splitlines()]
    return {row["number"]: row["state"] for row in rows}


def plan(shop, **behaviours):
    (shop / "plan.json").write_text(json.dumps(behaviours))


ARRAY = ["sweep", "c.py", "--metric", "mean_iou", "--array", "learning_rate=1e-1,1e-3,1e-2"]


def test_every_combination_runs_once_and_the_best_is_told_with_its_command(shop, capsys):
    assert main(ARRAY) == 0
    assert calls(shop) == [
        [rate, f"c_sweep/{number}-learning_rate={rate}", "c_sweep"]
        for number, rate in enumerate(("1e-1", "1e-3", "1e-2"))
    ]
    said = capsys.readouterr().out.splitlines()
    assert "trial 1  learning_rate=1e-3: finished, eval_mean_iou 1 (best 1, trial 1)" in said
    assert [line.split() for line in said if line.strip().startswith(("0 ", "1 ", "2 "))] == [
        ["1", "1e-3", "1"],
        ["2", "1e-2", "0.75"],
        ["0", "1e-1", "0.5"],
    ]
    best = json.loads((shop / "work_dirs" / "c_sweep" / "best.json").read_text())
    assert best["values"] == {"learning_rate": "1e-3"}
    assert best["value"] == 1
    assert best["command"] == "mllm train c.py --learning_rate 1e-3 --output_dir work_dirs/c_sweep_best"
    assert said[-1] == f"again: {best['command']}"


def test_what_is_done_is_not_done_again_and_more_trials_are_added(shop, capsys):
    words = ["sweep", "c.py", "--space", "learning_rate=log:1e-5:1e-1", "--sampler", "random", "--trials"]
    assert main([*words, "2"]) == 0
    first = calls(shop)
    assert main([*words, "2"]) == 0
    assert calls(shop) == first
    assert "2 trials have ended before" in capsys.readouterr().out
    assert main([*words, "4"]) == 0
    assert calls(shop)[:2] == first
    assert len(calls(shop)) == 4
    # The same four as of a sweep that was never stopped.
    assert main([*words, "4", "--name", "whole"]) == 0
    assert [rate for rate, _, _ in calls(shop)[:4]] == [rate for rate, _, _ in calls(shop)[4:]]


def test_smaller_is_better_for_losses_and_where_it_is_said(shop):
    assert main([*ARRAY, "--minimize", "--name", "a"]) == 0
    assert main(["sweep", "c.py", "--metric", "train_loss", *ARRAY[4:], "--name", "b"]) == 0
    for name in ("a", "b"):
        assert json.loads((shop / "work_dirs" / name / "best.json").read_text())["values"] == {"learning_rate": "1e-1"}


def test_without_a_metric_the_first_declared_one_decides(shop, capsys):
    assert main(["sweep", "c.py", *ARRAY[4:]]) == 0
    assert "eval_acc@0.5" in capsys.readouterr().out


def test_a_hopeless_trial_is_stopped_at_once(shop, capsys):
    """It would stall for ever at step 10, where three others were better."""
    plan(shop, stall=["1e-6"])
    rates = "learning_rate=1e-3,2e-3,5e-3,1e-6"
    words = ["sweep", "c.py", "--metric", "mean_iou", "--array", rates, "--prune-after", "3"]
    assert main(words) == 0
    assert states(shop)[3] == "pruned"
    assert "is worse than the median of the others" in capsys.readouterr().out
    assert not (shop / "work_dirs/c_sweep/3-learning_rate=1e-6/all_results.json").exists()
    assert main(words) == 0
    assert len(calls(shop)) == 4


def test_failed_trials_are_named_and_counted_and_may_be_tried_again(shop, capsys):
    plan(shop, fail=["1e-2"], nan=["1e-1"])
    assert main(ARRAY) == 0
    said = capsys.readouterr().out
    assert "trial 2  learning_rate=1e-2: failed: no memory left" in said
    assert "trial 0  learning_rate=1e-1: failed: eval_mean_iou is nan" in said
    assert "3 trials: 1 finished, 2 failed" in said
    plan(shop)
    assert main(ARRAY) == 0
    assert len(calls(shop)) == 3
    assert main([*ARRAY, "--retry"]) == 0
    assert states(shop) == dict.fromkeys(range(3), "finished")
    assert len(calls(shop)) == 5


def test_where_all_trials_fail_the_sweep_fails(shop, capsys):
    plan(shop, fail=["1e-1", "1e-2", "1e-3"])
    assert main(ARRAY) == 1
    assert "none of 3 trials has come to its end; trial 0: no memory left" in capsys.readouterr().err
    assert not (shop / "work_dirs/c_sweep/best.json").exists()


def test_an_interrupted_sweep_lets_its_trials_save_and_goes_on(shop, monkeypatch, capsys):
    plan(shop, stall=["1e-3"])
    evaluations = shop / "work_dirs/c_sweep/1-learning_rate=1e-3/evaluations.jsonl"

    def sleep(seconds):
        if evaluations.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mllm.pipeline.cluster.sweep.time.sleep", sleep)
        assert main(ARRAY) == 130
    assert "its trials have saved and ended; the same command goes on" in capsys.readouterr().out
    assert states(shop) == {0: "finished", 1: "running"}
    (shop / "go").touch()
    assert main(ARRAY) == 0
    assert states(shop) == dict.fromkeys(range(3), "finished")
    assert [rate for rate, _, _ in calls(shop)] == ["1e-1", "1e-3", "1e-3", "1e-2"]


def test_a_trial_that_outlived_its_sweep_is_followed_and_not_started_twice(shop, monkeypatch):
    plan(shop, stall=["1e-1"])

    def die(sweep):
        if sweep.trials:
            (shop / "go").touch()
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("mllm.pipeline.cluster.sweep.Sweep._look", die)
        with pytest.raises(RuntimeError):
            main(ARRAY)
    assert states(shop) == {0: "running"}
    assert main([*ARRAY, "--parallel", "1"]) == 0
    assert [rate for rate, _, _ in calls(shop)] == ["1e-1", "1e-3", "1e-2"]


def test_several_trials_run_at_a_time(shop):
    """Two wait for each other's evaluations: one after the other they would wait for ever."""
    plan(shop, stall=["1e-1", "1e-3"])
    source = (shop / "run_of_stub.py").read_text()
    meet = "Path('go').exists() and len(list(Path('work_dirs/c_sweep').glob('*/evaluations.jsonl'))) < 2"
    (shop / "run_of_stub.py").write_text(source.replace('not Path("go").exists()', meet))
    (shop / "go").touch()
    assert main([*ARRAY, "--parallel", "2"]) == 0
    assert states(shop) == dict.fromkeys(range(3), "finished")


def test_each_trial_of_this_machine_has_its_own_gpus(shop, monkeypatch):
    from mllm.pipeline.cluster import machines, runners

    (shop / "gpu.py").write_text(tiny.config_text("runs/gpu", training_args={**EVALUATES, "use_cpu": False}))
    for module in (machines, runners):
        monkeypatch.setattr(module, "visible_gpus", lambda: ["4", "5", "6", "7"])
    source = (shop / "run_of_stub.py").read_text()
    note = "(folder / 'gpus').write_text(os.environ['CUDA_VISIBLE_DEVICES'] + ' ' + ' '.join(words))\n"
    (shop / "run_of_stub.py").write_text(source.replace("plan = json", f"{note}plan = json"))
    words = ["sweep", "gpu.py", "--metric", "mean_iou", *ARRAY[4:], "--parallel", "2", "--name", "c_sweep"]
    assert main(words) == 0
    found = sorted(path.read_text() for path in (shop / "work_dirs/c_sweep").glob("*/gpus"))
    assert {text.split()[0] for text in found} == {"4,5", "6,7"}
    assert all("--num_processes 2 " in text for text in found)
    assert main([*words[:-1], "d", "-g", "3"]) == 2


SBATCH = """#!/bin/bash
script=${2}
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
echo "$script $last" >> submitted
for task in $(seq 0 "$last"); do
    SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task bash "$script" > "work_dirs/c_sweep/slurm-7_$task.log"
done
echo 7
"""


def test_on_slurm_the_trials_are_tasks_of_one_array(shop, monkeypatch, capsys):
    for name, text in (("sbatch", SBATCH), ("squeue", "#!/bin/sh\n"), ("scontrol", "#!/bin/sh\n")):
        (shop / "bin" / name).write_text(text)
        (shop / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{shop / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("mllm.pipeline.cluster.runners.Slurm.poll", 0.01)
    monkeypatch.setattr("mllm.pipeline.cluster.runners.Slurm.lag", 0.0)
    plan(shop, fail=["1e-2"])
    assert main([*ARRAY, "--jobs", "slurm", "--processes", "1", "--parallel", "2"]) == 0
    assert (shop / "submitted").read_text() == "work_dirs/c_sweep/submit-0.sh 2\n"
    assert "#SBATCH --array=0-2%2\n" in (shop / "work_dirs/c_sweep/submit-0.sh").read_text()
    assert "trial 2  learning_rate=1e-2: failed: no memory left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["c.py"], 2, "expected --array (every combination) or --space (drawn values), one of both"),
        (["c.py", "--space", "learning_rate=log:1e-5:1e-3"], 2, "--space needs --trials N"),
        (["c.py", "--array", "seed=1,2", "--trials", "2"], 2, "--trials and --sampler go with --space"),
        (["c.py", "--space", "learning_rate=log:1e-3:1e-5", "--trials", "2"], 2, "expected LOW below HIGH"),
        (["c.py", "--space", "learning_rate=log:0:1", "--trials", "2"], 2, "a logarithmic range begins above 0"),
        (["c.py", "--space", "learning_rate=log:1", "--trials", "2"], 2, "expected log:LOW:HIGH with two numbers"),
        (["c.py", "--space", "max_steps=int:1.5:3", "--trials", "2"], 2, "with two whole numbers"),
        (["c.py", "--space", "learning_rat=log:1:2", "--trials", "2"], 2, "did you mean '--learning_rate'"),
        (["c.py", "--space", "max_steps=float:1:3.5", "--trials", "2"], 2, "--max_steps: expected a whole number"),
        (["c.py", "--space", "learning_rate", "--trials", "2"], 2, "expected key=log:LOW:HIGH"),
        (["c.py", "--space", "seed=1,1", "--trials", "2"], 2, "a value is empty or there twice"),
        (["c.py", "--array", "seed=1,2", "--partition", "p"], 2, "--partition is for a queue"),
        (["c.py", "--array", "seed=1,2", "--parallel", "0"], 2, "--parallel 0: expected at least 1"),
        (["c.py", "--array", "seed=1,2", "--metric", "mean_iuo"], 2, "did you mean 'eval_mean_iou'"),
        (["c.py", "--array", "seed=1,2", "--metric", "test_mean_iou"], 2, "is none that this run computes"),
        (["quiet.py", "--array", "seed=1,2"], 2, "the run computes no score to go by"),
        (["c.py", "--array", "seed=1,2", "--maximize", "--minimize"], 2, "not allowed with"),
        (["c.py", "--array", "seed=1,2", "--prune-after", "-1"], 2, "--prune-after -1: expected at least 0"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_trial_is_started(shop, capsys, words, code, message):
    assert main(["sweep", *words]) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (shop / "work_dirs").exists()


def test_a_folder_holds_one_sweep(shop, capsys):
    assert main(ARRAY) == 0
    capsys.readouterr()
    assert main([*ARRAY[:-1], "learning_rate=1e-1,1e-4"]) == 1
    assert "holds a sweep with array learning_rate=1e-1,1e-3,1e-2, now it is learning_rate=1e-1,1e-4" in (
        capsys.readouterr().err
    )
    (shop / "work_dirs" / "other").mkdir()
    (shop / "work_dirs" / "other" / "weights").touch()
    assert main([*ARRAY, "--name", "other"]) == 1
    assert "is not empty and holds no sweep" in capsys.readouterr().err


def test_two_sweeps_do_not_share_a_folder(shop, capsys):
    with alone_in(shop / "work_dirs" / "c_sweep"):
        assert main(ARRAY) == 1
    assert "another mllm sweep is at work here" in capsys.readouterr().err
    (shop / "file").touch()
    assert main([*ARRAY, "--", "--output_dir", "file/sweep"]) == 1
    assert "file/sweep cannot be written: Not a directory" in capsys.readouterr().err
    assert calls(shop) == []


def test_a_line_that_a_crash_cut_short_is_dropped(shop):
    assert main(ARRAY) == 0
    path = shop / "work_dirs/c_sweep/trials.jsonl"
    path.write_text(path.read_text()[:-20])
    assert main(ARRAY) == 0
    assert states(shop) == dict.fromkeys(range(3), "finished")
    assert len(calls(shop)) == 3  # its result lay there


CURVES = [{10: 0.1}, {10: 0.5}, {10: 0.9, 20: 1.0}]


@pytest.mark.parametrize(
    ("seen", "after", "maximize", "hopeless"),
    [
        ({10: 0.4}, 3, True, True),  # the median of 0.1, 0.5, 0.9 is 0.5
        ({10: 0.6}, 3, True, False),
        ({10: 0.5}, 3, True, False),  # as good as the middle one
        ({5: 0.6, 10: 0.4}, 3, True, False),  # was better before
        ({0: 0.9, 10: 0.4}, 3, True, True),  # before the first step it had learnt nothing
        ({10: 0.6}, 3, False, True),
        ({10: 0.4}, 3, False, False),
        ({10: 0.4}, 4, True, False),  # three others are not enough
        ({20: 0.4}, 2, True, False),  # one other has come as far
        ({20: 0.4}, 1, True, True),
        ({10: 0.0}, 0, True, False),
        ({}, 1, True, False),
        ({0: 0.0}, 1, True, False),
        ({10: float("nan")}, 3, True, True),
    ],
)
def test_the_median_rule(seen, after, maximize, hopeless):
    assert is_hopeless(seen, CURVES, after, maximize) is hopeless


def test_of_equal_trials_the_first_is_the_best():
    trials = [Trial(n, {}, "", "finished", value) for n, value in enumerate((0.5, 0.7, 0.7))]
    trials.append(Trial(3, {}, "", "pruned"))
    assert best_of(trials, True).number == 1
    assert best_of(trials, False).number == 0
    assert best_of([], True) is None


def test_drawn_values_lie_in_their_ranges():
    space = parse_space(
        [
            "learning_rate=log:1e-5:1e-3",
            "weight_decay=float:0:0.1",
            "max_steps=int:1:3",
            "+a.r=logint:4:256",
            "seed=1,2",
        ],
        TABLE,
    )
    rng = random.Random(0)
    drawn = [{key: one.draw(rng) for key, one in space.items()} for _ in range(400)]
    rates = [float(row["learning_rate"]) for row in drawn]
    assert min(rates) >= 1e-5
    assert max(rates) <= 1e-3
    # On a logarithmic range one half lies below the geometric middle, 1e-4.
    assert 150 < sum(rate < 1e-4 for rate in rates) < 250
    assert {row["max_steps"] for row in drawn} == {"1", "2", "3"}
    assert all(4 <= int(row["+a.r"]) <= 256 for row in drawn)
    assert {row["seed"] for row in drawn} == {"1", "2"}
    assert all(0 <= float(row["weight_decay"]) <= 0.1 for row in drawn)


@pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed: pip install 'mllm[sweep]'"
)
def test_optuna_learns_from_the_trials_of_before():
    space = parse_space(["learning_rate=log:1e-6:1e-1", "max_steps=int:1:9", "optim=sgd,adamw_torch"], TABLE)
    sampler = Tpe(space, 0, maximize=True)
    trials = []
    for number in range(40):
        values = sampler.propose(number, trials)
        rate, steps = float(values["learning_rate"]), int(values["max_steps"])
        assert 1e-6 <= rate <= 1e-1
        assert 1 <= steps <= 9
        value = -abs(rate - 1e-3) * 1000 - abs(steps - 5) - (values["optim"] == "sgd")
        state = "pruned" if number % 7 == 3 else "failed" if number % 7 == 5 else "finished"
        trials.append(Trial(number, values, "", state, value if state == "finished" else None, curve={10: value}))
    assert sampler.propose(40, trials) == sampler.propose(40, trials)  # a sweep that was stopped asks again
    late = [abs(int(trial.values["max_steps"]) - 5) for trial in trials[20:]]
    assert sum(late) / len(late) < 1.5  # drawn evenly it would be 2.2


@pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed: pip install 'mllm[sweep]'"
)
def test_with_optuna_a_sweep_runs_to_its_end_and_goes_on(shop):
    words = ["sweep", "c.py", "--space", "learning_rate=log:1e-5:1e-1", "--metric", "mean_iou", "--trials"]
    assert main([*words, "3", "--parallel", "2", "--prune-after", "0"]) == 0
    assert main([*words, "5", "--prune-after", "0"]) == 0
    assert states(shop) == dict.fromkeys(range(5), "finished")
    assert json.loads((shop / "work_dirs/c_sweep/sweep.json").read_text())["sampler"] == "tpe"


def test_without_optuna_tpe_says_what_to_install(shop, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = ["sweep", "c.py", "--space", "learning_rate=log:1e-5:1e-1", "--trials", "2", "--sampler", "tpe"]
    assert main(words) == 1
    assert "pip install 'mllm[sweep]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "x\nfinetune.py: error: no memory\nChildFailedError: rank 0\n[2026] the run ended with exit code 1\n",
            "no memory",
        ),
        ("x\nSegmentation fault\n[2026] ended with exit code 1\n", "Segmentation fault"),
        ("", "its log is empty"),
    ],
)
def test_why_a_trial_failed_is_read_from_its_log(tmp_path, text, reason):
    (tmp_path / "log").write_text(text)
    assert why_failed(tmp_path / "log") == reason
    assert why_failed(tmp_path / "none") == "it left no log"


def test_the_command_that_repeats_the_best_is_one_that_a_shell_reads(shop):
    words = [*ARRAY, "--", "--cfg-options", "data_args.train.questions=Where is <expr> in <image> ?"]
    assert main(words) == 0
    command = json.loads((shop / "work_dirs/c_sweep/best.json").read_text())["command"]
    assert shlex.split(command)[3:5] == ["--cfg-options", "data_args.train.questions=Where is <expr> in <image> ?"]
