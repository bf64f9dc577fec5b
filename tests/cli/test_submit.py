"""``mllm submit``: what is refused before anything is submitted, names and folders, templates, what sbatch is told."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import tiny

from mllm.cli.main import main
from mllm.pipeline.cluster.machines import clock, seconds_of
from mllm.utils.program import UsageError

ROOT = Path(__file__).resolve().parents[2]
MANY = ",".join(map(str, range(1, 41)))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with a config for GPUs, one for the CPU, and no cluster."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpu.py").write_text(
        tiny.config_text("runs/gpu", training_args={"use_cpu": False, "dataloader_num_workers": 2})
    )
    (tmp_path / "cpu.py").write_text(tiny.config_text("runs/cpu"))
    (tmp_path / "idle.py").write_text(tiny.config_text("runs/idle", training_args={"do_train": False}))
    return tmp_path


@pytest.fixture
def sbatch(shop, monkeypatch):
    """Stand-ins for sbatch and squeue; the folder in which they write down how they were called."""
    folder = shop / "bin"
    folder.mkdir()
    (folder / "queue").write_text("")
    (folder / "sbatch").write_text(f'#!/bin/sh\necho "$@" > {folder}/called\necho "41;here"\n')
    (folder / "squeue").write_text(f"#!/bin/sh\ncat {folder}/queue\n")
    for name in ("sbatch", "squeue"):
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def script(capsys, *words):
    """What --print writes."""
    capsys.readouterr()
    place = 0 if words[0].startswith("-") else 1  # a config stands first
    assert main(["submit", *words[:place], "--print", *map(str, words[place:])]) == 0
    return capsys.readouterr().out


def directives(text):
    return dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in text.splitlines()
        if line.startswith("#SBATCH --")
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "no config given"),
        (["gpuu.py"], 1, "config 'gpuu.py' not found"),
        (["gpu.py", "--time", "24h"], 2, "--time '24h': expected HH:MM:SS, D-HH:MM:SS, D-HH, or minutes"),
        (["gpu.py", "--time", "24:00"], 2, "--time 24:00: to Slurm these are minutes and seconds"),
        (["gpu.py", "--time", "0:00:10"], 2, "expected at least a minute"),
        (["gpu.py", "-N", "0"], 2, "-N 0: expected at least 1"),
        (["gpu.py", "-g", "-1"], 2, "-g -1: expected at least 0"),
        (["gpu.py", "--processes", "0"], 2, "--processes 0: expected at least 1"),
        (["gpu.py", "-g", "2", "--processes", "2"], 2, "processes run on GPUs or on the CPU"),
        (["gpu.py", "--processes", "2", "--engine", "fsdp"], 2, "--engine fsdp needs GPUs"),
        (["gpu.py", "--engine", "fdsp"], 1, "did you mean 'fsdp'"),
        (["gpu.py", "--grace", "100000"], 2, "expected at most 65535 seconds"),
        (["cpu.py", "-g", "2"], 2, "the config says use_cpu"),
        (["gpu.py", "--name", "a/b"], 2, "--name 'a/b': expected letters"),
        (["gpu.py", "--tme", "1"], 2, "unknown flag --tme; did you mean '--time'"),
        (["gpu.py", "--", "--sed", "1"], 2, "unknown flag --sed; did you mean '--seed'"),
        (["gpu.py", "--", "--time", "1:00:00"], 2, "--time is no flag of the run: it stands before the --"),
        (["gpu.py", "--", "--seed", "one"], 2, "--seed: expected a whole number, got 'one'"),
        (["gpu.py", "cpu.py"], 2, "'cpu.py' is no flag and no value; the config is the first word"),
        (["gpu.py", "--", "--cfg-options", "data_args.train.cuont=3"], 1, "did you mean 'count'"),
        (["gpu.py", "--", "--resume_from_checkpoint", "x"], 2, "it goes on from the last checkpoint in output_dir"),
        (["idle.py"], 1, "nothing to do: give one of --do_train"),
        (["gpu.py", "--array", "seed"], 2, "--array 'seed': expected key=a,b,c"),
        (["gpu.py", "--array", "seed=1,,2"], 2, "--array 'seed=1,,2': expected key=a,b,c"),
        (["gpu.py", "--array", "seed=1,1"], 2, "holds a value twice"),
        (["gpu.py", "--array", "seed=1", "--array", "seed=2"], 2, "--array seed is given twice"),
        (["gpu.py", "--array", "sed=1,2"], 2, "--array sed: unknown flag --sed; did you mean '--seed'"),
        (["gpu.py", "--array", "seed=1,b"], 2, "--seed: expected a whole number, got 'b'"),
        (["gpu.py", "--array", "data_args.train.cuont=3,4"], 1, "did you mean 'count'"),
        (["gpu.py", "--array", "output_dir=a,b"], 2, "--array output_dir: each task has a folder of its own"),
        (["gpu.py", "--array", "seed=1,2", "--", "--seed", "3"], 2, "--array seed and seed among the flags of the run"),
        (["gpu.py", "--array", "config=gpu.py,cpu.py"], 2, "the config 'gpu.py' and --array config=…"),
        (["--array", "config=gpu.py,cpu.py"], 2, "--array config=… has no name of its own: give --name"),
        (["--array", "config=gpu.py,cpuu.py", "--name", "x"], 1, "config 'cpuu.py' not found"),
        (["gpu.py", "--array", f"seed={MANY}", "--array", f"max_steps={MANY}"], 2, "1600 combinations; expected at"),
        (["gpu.py", "--set", "=x"], 2, "--set '=x': expected key=value"),
        (["gpu.py", "--set", "nodes=3"], 2, "--set 'nodes=3': the script sets 'nodes' itself"),
        (["gpu.py", "--template", "nowhere.j2"], 1, "--template 'nowhere.j2': no such file"),
        (["gpu.py", "--cluster", "local", "--partition", "p"], 2, "--partition is for a queue, and the run is to be"),
        (["cpu.py", "--cluster", "local", "-N", "2"], 2, "-N 2: --cluster local is this machine alone"),
        (["gpu.py", "--cluster", "pbs"], 2, "invalid choice: 'pbs'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_nothing_is_submitted(shop, sbatch, capsys, words, code, message):
    words = words if "--cluster" in words else [*words[:1], "--cluster", "slurm", *words[1:]]
    words = words if words[0] != "--array" else ["--array", words[3], "--cluster", "slurm", *words[4:]]
    assert main(["submit", *words]) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("mllm: error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (sbatch / "called").exists()
    assert not (shop / "runs").exists()


def test_the_script_asks_slurm_for_what_was_asked_for(shop, capsys):
    text = script(
        capsys, "gpu.py", "--cluster", "slurm", "-N", 2, "-g", 8, "--time", "1-12", "--partition", "gpu",
        "--account", "a", "--name", "x", "--set", "mem=64G", "--set", "exclusive", "--engine", "fsdp",
        "--", "--num_train_epochs", 3,
    )  # fmt: skip
    assert directives(text) == {
        "job-name": "x",
        "nodes": "2",
        "ntasks-per-node": "1",
        "cpus-per-task": "24",  # 8 processes, each with 2 that load data
        "gres": "gpu:8",
        "time": "36:00:00",
        "output": f'"{shop}/work_dirs/x/slurm-%j.log"',
        "open-mode": "append",
        "requeue": "",
        "signal": "B:USR1@120",
        "partition": "gpu",
        "account": "a",
        "mem": "64G",
        "exclusive": "",
    }
    assert f"--config_file {ROOT}/accelerate_config/fsdp.yaml" in text
    assert "--num_machines 2 --num_processes 16" in text
    assert f"{ROOT}/mllm/pipeline/finetune.py gpu.py --output_dir" in text
    assert "--resume_from_checkpoint auto --num_train_epochs 3\n" in text
    assert not (shop / "work_dirs").exists()


@pytest.mark.parametrize(("time", "grace"), [([], 120), (["--time", "4"], 60), (["--time", "4", "--grace", "30"], 30)])
def test_a_short_job_is_not_told_to_stop_as_it_begins(shop, capsys, time, grace):
    assert directives(script(capsys, "gpu.py", "--cluster", "slurm", *time))["signal"] == f"B:USR1@{grace}"


@pytest.mark.parametrize(
    ("words", "name", "folder"),
    [
        ([], "gpu", "runs/gpu"),
        (["--name", "x"], "x", "work_dirs/x"),
        (["--", "--output_dir", "else/where"], "where", "else/where"),
        (["--name", "x", "--", "--output_dir=else/where/"], "x", "else/where"),
        (["--", "--cfg-options", "training_args.output_dir=runs/b c"], "b-c", "runs/b c"),
    ],
)
def test_name_and_output_folder(shop, capsys, words, name, folder):
    text = script(capsys, "gpu.py", "--cluster", "slurm", *words)
    asked = directives(text)
    assert asked["job-name"] == name
    assert asked["output"] == f'"{shop}/{folder}/slurm-%j.log"'
    assert text.count("--output_dir ") == 1 + ("--output_dir " in text.splitlines()[1])


def tasks(text):
    """Folder and words of each task of a script."""
    rows = [line.strip() for line in text.splitlines()]
    heads = [row for row in rows if row.startswith("title=")]
    bodies = [row for row in rows if row.startswith("config=")]
    return [(head.split("out=")[1], body) for head, body in zip(heads, bodies, strict=True)]


def test_an_array_is_the_product_of_its_lists(shop, capsys):
    text = script(
        capsys, "gpu.py", "--cluster", "slurm", "--array", "seed=1,2", "--array", "data_args.train.count=8,16",
        "--at-once", 3,
    )  # fmt: skip
    assert directives(text)["array"] == "0-3%3"
    assert directives(text)["output"].endswith('runs/gpu/slurm-%A_%a.log"')
    assert tasks(text) == [
        (
            f"runs/gpu/seed={seed},data_args.train.count={count}",
            f"config=gpu.py words=(--run_name gpu/seed={seed},data_args.train.count={count} --seed {seed} "
            f"--cfg-options data_args.train.count={count})",
        )
        for seed in (1, 2)
        for count in (8, 16)
    ]
    assert "export MLLM_GROUP=gpu" in text


def test_an_array_over_configs_and_values_in_brackets(shop, capsys):
    text = script(capsys, "--array", "config=gpu.py,cpu.py", "--name", "x", "--cluster", "slurm", "--processes", 1)
    assert [folder for folder, _ in tasks(text)] == ["work_dirs/x/config=gpu", "work_dirs/x/config=cpu"]
    assert [words.split(" words")[0] for _, words in tasks(text)] == ["config=gpu.py", "config=cpu.py"]
    text = script(
        capsys, "gpu.py", "--cluster", "slurm", "--array", "tune.freeze=[],['vision','language']",
    )  # fmt: skip
    assert [folder for folder, _ in tasks(text)] == [
        "runs/gpu/tune.freeze=none",
        "runs/gpu/tune.freeze=vision-language",
    ]


def test_tasks_whose_names_would_be_equal_or_long_are_numbered(shop, capsys):
    text = script(capsys, "gpu.py", "--cluster", "slurm", "--array", "+data_args.note=a/b,a b")
    assert [folder for folder, _ in tasks(text)] == ["runs/gpu/0-data_args.note=a-b", "runs/gpu/1-data_args.note=a-b"]
    text = script(capsys, "gpu.py", "--cluster", "slurm", "--array", f"+data_args.note={'x' * 200},y")
    assert max(len(Path(folder).name) for folder, _ in tasks(text)) == 120


def test_submitting_keeps_the_script_and_tells_how_to_watch_and_cancel(shop, sbatch, capsys):
    assert main(["submit", "gpu.py", "-g", "1"]) == 0  # sbatch is on the path: Slurm
    told = capsys.readouterr().out
    assert told.splitlines() == [
        "submitted job 41 (gpu): runs/gpu/submit.sh",
        "  watch   squeue -j 41",
        "  log     tail -F runs/gpu/slurm-41.log",
        "  cancel  scancel 41",
    ]
    assert (sbatch / "called").read_text() == "--parsable runs/gpu/submit.sh\n"
    assert (shop / "runs/gpu/submit.sh").read_text().startswith("#!/bin/bash\n# mllm submit gpu.py -g 1\n")
    assert main(["submit", "gpu.py", "-g", "1"]) == 0  # nothing of it has run: nothing would be lost
    (sbatch / "queue").write_text(f"41 {shop}\n")
    assert main(["submit", "gpu.py", "-g", "1"]) == 2
    assert "job 41 is called 'gpu' and still there" in capsys.readouterr().err
    (sbatch / "queue").write_text("41 /some/where/else\n")
    assert main(["submit", "gpu.py", "-g", "1"]) == 0


def test_a_folder_with_a_run_is_gone_on_with_or_refused(shop, sbatch, capsys):
    folder = shop / "runs" / "gpu"
    folder.mkdir(parents=True)
    words = ["submit", "gpu.py", "-g", "1"]
    (folder / "run.json").write_text("{}")
    assert main(words) == 0  # began and came to no checkpoint
    (folder / "train_results.json").write_text("{}")
    assert main(words) == 1
    assert "'runs/gpu' is not empty" in capsys.readouterr().err
    assert main([*words, "--overwrite_output_dir"]) == 0
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "trainer_state.json").write_text(json.dumps({"global_step": 3}))
    assert main(words) == 0
    assert main([*words, "--overwrite_output_dir"]) == 2
    assert "holds checkpoint-3, from which the script goes on" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_told(shop, sbatch, capsys):
    (shop / "file").touch()
    for folder in ("file", "file/run"):
        assert main(["submit", "gpu.py", "-g", "1", "--", "--output_dir", folder]) == 1
        assert capsys.readouterr().err.startswith(f"mllm: error: {'output_dir ' if folder == 'file' else folder}")
    assert not (sbatch / "called").exists()


def test_what_a_cluster_refuses_is_told(shop, sbatch, capsys):
    (sbatch / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Batch job submission failed: no' >&2\nexit 1\n")
    assert main(["submit", "gpu.py", "-g", "1"]) == 1
    assert capsys.readouterr().err == "mllm: error: sbatch refused: Batch job submission failed: no\n"


def test_a_site_edits_its_own_templates(shop, capsys):
    assert main(["submit", "--copy-templates", "tools/cluster"]) == 0
    written = sorted(path.name for path in (shop / "tools" / "cluster").iterdir())
    assert written == ["local.sh.j2", "run.sh.j2", "sge.sh.j2", "slurm.sh.j2"]
    own = shop / "tools" / "cluster" / "slurm.sh.j2"
    own.write_text(own.read_text().replace("#SBATCH --requeue\n", "#SBATCH --requeue\n#SBATCH --account=ours\n"))
    assert directives(script(capsys, "gpu.py", "--cluster", "slurm"))["account"] == "ours"
    assert directives(script(capsys, "gpu.py", "--cluster", "slurm", "--account", "mine"))["account"] == "mine"
    assert main(["submit", "--copy-templates", "tools/cluster"]) == 1
    assert "slurm.sh.j2 is there and differs" in capsys.readouterr().err


def test_a_template_of_ones_own_may_use_the_shipped_parts(shop, capsys):
    (shop / "site.j2").write_text('#!/bin/bash\n#SBATCH -J {{ name }}\n{% include "run.sh.j2" %}\nstart\nfollow\n')
    text = script(capsys, "gpu.py", "--cluster", "slurm", "--template", "site.j2")
    assert text.startswith("#!/bin/bash\n#SBATCH -J gpu\n")
    assert "exec accelerate launch" in text
    for body, message in (
        ("{{ nmae }}", "'nmae' is undefined"),
        ("{% if %}", "site.j2:1: "),
        ('{% include "x" %}', "'x' is in none of"),
    ):
        (shop / "site.j2").write_text(body)
        assert main(["submit", "gpu.py", "--cluster", "slurm", "--print", "--template", "site.j2"]) == 1
        assert message in capsys.readouterr().err


def test_here_the_script_takes_the_place_of_the_program(shop, monkeypatch):
    def exec_instead(*call):
        raise RuntimeError(call)

    monkeypatch.setattr("os.execvp", exec_instead)
    with pytest.raises(RuntimeError) as caught:
        main(["submit", "cpu.py", "--cluster", "local"])
    assert caught.value.args == (("bash", ["bash", "runs/cpu/submit.sh"]),)
    assert (shop / "runs" / "cpu" / "submit.sh").is_file()


@pytest.mark.slow
def test_here_the_run_is_in_the_foreground_and_its_exit_code_is_the_programs(shop):
    path = shop / "one_step.py"
    path.write_text(tiny.config_text("runs/one_step", training_args={"max_steps": 1}))
    words = [os.sys.executable, "-m", "mllm.cli.main", "submit", "one_step.py", "--cluster", "local"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (shop / "runs" / "one_step" / "train_results.json").is_file()
    assert "one_step -> runs/one_step" in done.stdout


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:00:00", 3600), ("2-0", 172800), ("1-2:30", 95400), ("0-0:1:30", 90), ("100:00:00", 360000)],
)
def test_times_as_slurm_reads_them(text, seconds):
    assert seconds_of(text) == seconds
    assert seconds_of(clock(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:2:3", "-5", "1-", "1:00:00:00", "1.5"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="--time"):
        seconds_of(text)
