"""What the scripts do with signals, exit codes and several nodes; stand-ins take the places of launcher and cluster."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from mllm.cli.main import main

# The launcher: it writes down its words, its child is the run; like accelerate's own it ends with 1 if that fails.
LAUNCHER = """#!/bin/bash
trap 'echo "TERM to the launcher" >> "$STUBS/calls"; exit 1' TERM
echo "accelerate $*" >> "$STUBS/calls"
bash "$STUBS/run" "$@" &
wait $! || exit 1
"""
# Each writes down how it was called.
COMMANDS = {
    "scontrol": 'case "$*" in *hostnames*) echo n1;; *"show node"*) echo "NodeName=n1 NodeAddr=10.0.0.1 X=y";; '
    '*"show job"*) cat "$STUBS/job";; esac',
    "scancel": 'pkill -URG -P "$(cat "$STUBS/srun")" bash',
    "srun": 'echo $$ > "$STUBS/srun"; shift 2; SLURM_NODEID=0 "$@" & SLURM_NODEID=1 "$@" & '
    "wait -n; c=$?; wait -n || c=$?; exit $c",
    "qrsh": '[ "$1" = -inherit ] && shift 3 && "$@"',
}
SAVES = """
trap 'echo "TERM to the run" >> "$STUBS/calls"; {then}' TERM
echo running >> "$STUBS/running"
while :; do sleep 0.05; done
"""
SLURM = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_NUM_NODES": "2"}


class Scripts:
    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys
        self.stubs = folder / "stubs"
        self.environment = {
            **os.environ,
            **SLURM,
            "STUBS": str(self.stubs),
            "JOB_ID": "12",
            "PE_HOSTFILE": str(self.stubs / "hosts"),
        }
        self.returncode = None

    def write(self, *words):
        """The script for ``c.py``, valid bash."""
        self.capsys.readouterr()
        assert main(["submit", "c.py", "--print", *map(str, words)]) == 0
        text = self.capsys.readouterr().out
        assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
        (self.folder / "script.sh").write_text(text)
        return text

    def start(self, run, **environment):
        (self.stubs / "run").write_text(run)
        for left in ("calls", "running"):
            (self.stubs / left).unlink(missing_ok=True)
        return subprocess.Popen(
            ["bash", "script.sh"], env={**self.environment, **environment}, stdout=subprocess.PIPE, text=True
        )

    def run(self, run, *, until=0, send=(), **environment):
        """Run the script; once ``until`` runs are at work send signals. Gives exit code, output and calls."""
        process = self.start(run, **environment)
        try:
            while until and self.lines("running") < until:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.01)
            for number in send:
                process.send_signal(number)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        return process.returncode, output, (self.stubs / "calls").read_text().splitlines()

    def lines(self, name):
        path = self.stubs / name
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def scripts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.py").write_text(tiny.config_text("out"))
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "job").write_text("JobId=12 PreemptTime=None\n")
    (stubs / "hosts").write_text("n1 1 all.q\nn2 1 all.q\n")
    for name, body in COMMANDS.items():
        (stubs / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "$STUBS/calls"\n{body}\n')
    (stubs / "accelerate").write_text(LAUNCHER)
    for path in stubs.iterdir():
        path.chmod(0o755)
    monkeypatch.setattr("mllm.pipeline.cluster.scripts.sys.executable", str(stubs / "python"))
    return Scripts(tmp_path, capsys)


def called(calls, name):
    return [line for line in calls if line.startswith(name)]


def test_a_run_that_ends_well_ends_the_job(scripts):
    scripts.write("--cluster", "slurm", "--processes", 2)
    code, output, calls = scripts.run("exit 0")
    assert code == 0
    assert output.endswith("] done\n")
    (line,) = calls
    words = shlex.split(line)
    assert words[words.index("--num_processes") + 1] == "2"
    assert int(words[words.index("--main_process_port") + 1]) >= 10012
    assert words[-7:] == ["c.py", "--output_dir", "out", "--resume_from_checkpoint", "auto", "--use_cpu", "true"]


def test_a_run_that_fails_by_itself_is_not_tried_again(scripts):
    scripts.write("--cluster", "slurm", "--processes", 2)
    code, output, calls = scripts.run("exit 2")
    assert code == 1
    assert not called(calls, "scontrol requeue")
    assert "the run ended with exit code 1" in output


@pytest.mark.parametrize(("array", "name"), [([], "12"), (["--array", "seed=1,2"], "7_1")])
def test_usr1_lets_the_run_save_and_puts_the_job_back(scripts, array, name):
    scripts.write("--cluster", "slurm", "--processes", 2, *array)
    numbers = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    code, output, calls = scripts.run(SAVES.format(then="exit 75"), until=1, send=[signal.SIGUSR1], **numbers)
    assert code == 1
    assert called(calls, "TERM") == ["TERM to the run"]  # the launcher would leave it 30 seconds
    assert called(calls, "scontrol") == [f"scontrol requeue {name}"]
    assert "back to the queue" in output


def test_a_run_that_ended_well_although_it_was_asked_to_stop_is_not_put_back(scripts):
    scripts.write("--cluster", "slurm", "--processes", 2)
    code, _, calls = scripts.run(SAVES.format(then="exit 0"), until=1, send=[signal.SIGUSR1])
    assert code == 0
    assert not called(calls, "scontrol")


@pytest.mark.parametrize(("told", "requeued"), [("None", 0), ("2026-11-21T16:13:05", 1)])
def test_term_alone_puts_back_what_was_preempted_and_not_what_was_cancelled(scripts, told, requeued):
    scripts.write("--cluster", "slurm", "--processes", 2)
    (scripts.stubs / "job").write_text(f"JobId=12 PreemptTime={told}\n")
    code, _, calls = scripts.run(SAVES.format(then="exit 75"), until=1, send=[signal.SIGTERM])
    assert code != 0
    assert "TERM to the run" in calls
    assert len(called(calls, "scontrol requeue")) == requeued


def test_a_job_that_never_comes_on_is_not_restarted_for_ever(scripts):
    scripts.write("--cluster", "slurm", "--processes", 2)
    run = SAVES.format(then="exit 75")
    code, output, calls = scripts.run(run, until=1, send=[signal.SIGUSR1], SLURM_RESTART_COUNT="100")
    assert code == 1
    assert not called(calls, "scontrol requeue")
    assert "restarted 100 times" in output


def test_two_nodes_get_their_ranks_and_one_address(scripts):
    scripts.write("--cluster", "slurm", "-N", 2, "--processes", 3)
    code, _, calls = scripts.run("exit 0")
    assert code == 0
    first, second = sorted(called(calls, "accelerate"), key=lambda line: "--machine_rank 1" in line)
    assert "--num_machines 2 --num_processes 6 --machine_rank 0 --main_process_ip 10.0.0.1 " in first
    assert second == first.replace("--machine_rank 0", "--machine_rank 1")


def test_on_two_nodes_usr1_reaches_both_runs_and_no_launcher(scripts):
    scripts.write("--cluster", "slurm", "-N", 2, "--processes", 1)
    code, _, calls = scripts.run(SAVES.format(then="exit 75"), until=2, send=[signal.SIGUSR1])
    assert code != 0
    assert called(calls, "scancel") == ["scancel --signal=URG 12"]
    assert called(calls, "TERM") == ["TERM to the run"] * 2
    assert called(calls, "scontrol requeue") == ["scontrol requeue 12"]


def test_deepspeed_on_two_nodes_is_started_by_slurm_and_not_by_ssh(scripts):
    assert "--deepspeed_multinode_launcher standard" in scripts.write(
        "--cluster", "slurm", "-N", 2, "-g", 8, "--engine", "zero3", "--", "--use_cpu", "false"
    )
    assert "deepspeed_multinode" not in scripts.write(
        "--cluster", "slurm", "-g", 8, "--engine", "zero3", "--", "--use_cpu", "false"
    )
    assert "deepspeed_multinode" not in scripts.write(
        "--cluster", "slurm", "-N", 2, "-g", 8, "--", "--use_cpu", "false"
    )


def test_sge_asks_for_what_it_needs(scripts):
    words = ["--time", "1-0", "--partition", "long.q", "--account", "vision", "--set", "l=mem=4G", "--name", "x"]
    text = scripts.write(
        "--cluster", "sge", "-g", 4, *words, "--array", "seed=1,2,3", "--at-once", 2, "--", "--use_cpu", "false"
    )
    asked = [line.removeprefix("#$ ") for line in text.splitlines() if line.startswith("#$ ")]
    assert asked == [
        "-N x",
        "-S /bin/bash",
        f"-wd {scripts.folder}",
        "-V",
        "-j y",
        f"-o {scripts.folder}/work_dirs/x/sge-$JOB_ID.$TASK_ID.log",
        "-r y",
        "-notify",
        "-l h_rt=24:00:00,s_rt=23:58:00",
        "-l gpu=4",
        "-pe smp 4",
        "-t 1-3 -tc 2",
        "-q long.q",
        "-P vision",
        "-l mem=4G",
    ]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_sge_is_told_to_schedule_a_stopped_job_again(scripts, number):
    scripts.write("--cluster", "sge", "--processes", 2)
    code, _, calls = scripts.run(SAVES.format(then="exit 75"), until=1, send=[number])
    assert code == 99
    assert called(calls, "TERM") == ["TERM to the run"]
    assert scripts.run("exit 2")[0] == 1
    assert scripts.run("exit 0")[0] == 0


def test_sge_starts_the_other_hosts_with_their_rank_and_the_task_of_the_array(scripts):
    scripts.write("--cluster", "sge", "-N", 2, "--processes", 1, "--array", "seed=5,6")
    code, _, calls = scripts.run("exit 0", SGE_TASK_ID="2")
    assert code == 0
    assert len(called(calls, "qrsh -inherit -V n2 ")) == 1
    first, second = sorted(called(calls, "accelerate"), key=lambda line: "--machine_rank 1" in line)
    assert "--machine_rank 0 --main_process_ip n1 " in first
    assert "--seed 6" in first
    assert second == first.replace("--machine_rank 0", "--machine_rank 1")
    assert not list((scripts.folder / "out" / "seed=6").iterdir())


def test_here_the_tasks_run_one_after_the_other_and_a_failed_one_is_named(scripts):
    scripts.write("--cluster", "local", "--array", "seed=1,2,3")
    code, output, calls = scripts.run('case "$*" in *"--seed 2"*) exit 1;; esac')
    assert code == 1
    assert [line.split("--seed ")[1] for line in calls] == ["1", "2", "3"]
    assert "seed=2 ended with exit code 1" in output
    assert "seed=1 ended" not in output


def test_here_a_stop_lets_the_run_save_and_starts_no_other(scripts):
    scripts.write("--cluster", "local", "--array", "seed=1,2,3")
    code, _, calls = scripts.run(SAVES.format(then="exit 75"), until=1, send=[signal.SIGINT])
    assert code == 1
    assert called(calls, "TERM") == ["TERM to the run"]
    assert len(called(calls, "accelerate")) == 1


def test_paths_with_spaces_and_quotes_stay_whole(scripts, tmp_path, monkeypatch):
    odd = tmp_path / "it's a 100 % place"
    odd.mkdir()
    (odd / "my config.py").write_text(tiny.config_text("out"))
    monkeypatch.chdir(odd)
    words = ["--cluster", "slurm", "--processes", "1", "--print", "--", "--output_dir", "a b", "--run_name", "it's"]
    scripts.capsys.readouterr()
    assert main(["submit", "my config.py", *words]) == 0
    text = scripts.capsys.readouterr().out
    assert f'#SBATCH --output="{tmp_path}/it\'s a 100 %% place/a b/slurm-%j.log"' in text
    Path("script.sh").write_text(text)
    code, output, calls = scripts.run("exit 0")
    assert code == 0
    assert calls[0].endswith(
        "my config.py --output_dir a b --resume_from_checkpoint auto --run_name it's --use_cpu true"
    )
    assert "-> a b" in output


def test_the_interpreter_of_the_project_is_the_jobs(scripts):
    assert f'export PATH={scripts.stubs}:"$PATH"' in scripts.write("--cluster", "slurm", "--processes", 1)
    assert Path(sys.executable).parent == scripts.stubs
