"""The console script: verbs, exit codes, one sentence per error, nothing heavy where nothing heavy is needed."""

import json
import subprocess
import sys
import textwrap

import pytest

from mllm.cli import launching
from mllm.cli.main import main, verbs


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A current folder with ``config/leaf.py`` on ``config/_base_/train.py``; nothing ships."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mllm.config.find.shipped_folder", lambda name: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "config" / "_base_").mkdir(parents=True)
    (tmp_path / "config" / "_base_" / "train.py").write_text("training_args = dict(seed=1, hub_token='x')\n")
    (tmp_path / "config" / "leaf.py").write_text(
        '"""A leaf: says what it is."""\n_base_ = ["_base_/train.py"]\n'
        "custom_imports = dict(imports=['shop_plugin_of_leaf'])\nmodel_args = dict(type='X', a=[1, 'b'])\n"
    )
    (tmp_path / "config" / "shop_plugin_of_leaf.py").write_text("# not a config\n")
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["tran"], 2, "there is no verb 'tran'; did you mean 'train'"),
        (["list"], 2, "there is no verb 'list'"),
        (["list-cfg", "--patt", "x"], 2, "unrecognized arguments: --patt"),
        (["list-cfg", "-p", "laef"], 1, "no config matches 'laef'; did you mean 'leaf'"),
        (["copy-cfg", "leaf"], 2, "folder"),
        (["copy-cfg", "laef", "x"], 1, "did you mean 'leaf'"),
        (["show-cfg", "laef"], 1, "config 'laef' not found; did you mean 'leaf'"),
        (["show-cfg", "leaf", "--sed", "1"], 2, "unknown flag --sed; did you mean '--seed'"),
        (["train", "laef"], 1, "did you mean 'leaf'"),
        (["train"], 2, "no config given"),
        (["train", "leaf", "--launch"], 2, "--launch needs a value"),
        (["eval", "leaf", "--launch", "--config_file nope"], 1, "accelerate config 'nope' not found"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(shop, capsys, argv, code, message):
    assert main(argv) == code
    written = capsys.readouterr()
    assert message in written.err
    assert written.err.startswith("mllm: error: ")
    assert written.err.count("\n") == 1
    assert written.out == ""


def test_debug_shows_the_traceback(shop, capsys):
    assert main(["list-cfg", "--debug", "-p", "nothing"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_lists_every_verb_and_each_has_help(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert {"train", "eval", "predict", "list-cfg", "copy-cfg", "show-cfg", "registry"} <= set(verbs())
    for verb, doc in verbs().items():
        assert verb in text
        assert doc.endswith(".")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mllm 0.")
    assert main([]) == 2


def test_list_cfg_shows_names_and_first_lines(shop, capsys):
    assert main(["list-cfg", "-p", "LEA"]) == 0
    assert capsys.readouterr().out == "leaf  A leaf: says what it is.\n"


def test_a_copied_config_works_in_its_new_place(shop, capsys, tmp_path):
    assert main(["copy-cfg", "leaf", "new/place"]) == 0
    written = capsys.readouterr().out.split()
    assert sorted(written) == [
        "new/place/_base_/train.py",
        "new/place/leaf.py",
        "new/place/shop_plugin_of_leaf.py",
    ]
    assert main(["copy-cfg", "leaf", "new/place"]) == 0  # the same content is no conflict
    (tmp_path / "new/place/leaf.py").write_text("# mine\n")
    capsys.readouterr()
    assert main(["copy-cfg", "leaf", "new/place"]) == 1
    assert "--force overwrites it" in capsys.readouterr().err
    assert (tmp_path / "new/place/leaf.py").read_text() == "# mine\n"


def test_show_cfg_tells_values_and_origins_and_hides_secrets(shop, capsys):
    argv = ["show-cfg", "leaf", "--cfg-options", "training_args.seed=5", "--max_steps", "2"]
    assert main(argv) == 0
    lines = [line.split("  # ") for line in capsys.readouterr().out.splitlines()]
    assert {left.strip(): right for left, right in lines} == {
        "training_args.seed = 5": "--cfg-options",
        "training_args.hub_token = '***'": "config/_base_/train.py",
        "training_args.max_steps = 2": "flag",
        "custom_imports.imports.0 = 'shop_plugin_of_leaf'": "config/leaf.py",
        "model_args.type = 'X'": "config/leaf.py",
        "model_args.a.0 = 1": "config/leaf.py",
        "model_args.a.1 = 'b'": "config/leaf.py",
    }
    assert main([*argv, "--json", "--all"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["training_args.max_steps"] == {"key": "training_args.max_steps", "value": 2, "origin": "flag"}
    assert rows["training_args.eval_strategy"]["origin"] == "default"


def test_registry_names_the_file_and_line_of_a_class(monkeypatch, capsys):
    from mllm import registry

    class ThrowawayEvaluator:
        parse = statistics = reduce = metrics = None

    only = registry.Registry("EVALUATORS", package="none", requires=())
    only._module_dict["ThrowawayEvaluator"] = ThrowawayEvaluator
    monkeypatch.setattr(only, "import_from_location", lambda: None)
    monkeypatch.setattr(registry, "REGISTRIES", {"EVALUATORS": only})
    assert main(["registry", "--json"]) == 0
    place = json.loads(capsys.readouterr().out)["EVALUATORS"]["ThrowawayEvaluator"]
    file, _, line = place.rpartition(":")
    assert file.endswith("tests/cli/test_verbs.py")
    assert int(line) > 100


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("train", ["--do_train"]),
        ("eval", ["--do_train", "false", "--do_eval", "true", "--do_predict", "false", "--do_multi_predict", "false"]),
        ("predict", ["--do_train", "false", "--do_eval", "false", "--do_predict", "true"]),
    ],
)
def test_runs_go_through_accelerate_launch(shop, monkeypatch, verb, flags):
    calls = []
    monkeypatch.setattr(launching, "run_and_wait", lambda words: calls.append(words) or 7)
    assert main([verb, "leaf", "--launch", "--multi_gpu --num_processes 2", "--seed", "1", "--debug"]) == 7
    (words,) = calls
    script = next(index for index, word in enumerate(words) if word.endswith("mllm/pipeline/finetune.py"))
    assert words[:4] == [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    assert words[script - 3 : script] == ["--multi_gpu", "--num_processes", "2"]
    assert words[script + 1 :] == [*flags, "leaf", "--seed", "1", "--debug"]


def test_launch_may_name_a_shipped_accelerate_config(shop, monkeypatch, tmp_path):
    (tmp_path / "accelerate_config").mkdir()
    (tmp_path / "accelerate_config" / "fsdp.yaml").write_text("")
    words = launching.command(["leaf"], ["--config_file", "fsdp", "--quiet"], [])
    assert "accelerate_config/fsdp.yaml" in words


@pytest.mark.parametrize(("code", "expected"), [("3", 3), ("-signal.SIGTERM", 143)])
def test_the_childs_exit_code_is_ours(code, expected):
    program = f"import os, signal, sys; c = {code}; os.kill(os.getpid(), -c) if c < 0 else sys.exit(c)"
    assert launching.run_and_wait([sys.executable, "-c", program]) == expected


def test_termination_is_passed_on_to_the_run():
    """The parent gets SIGTERM from its child, passes it back, and the child ends in its own way with 5."""
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "signal.pause()\n"
    )
    assert launching.run_and_wait([sys.executable, "-c", program]) == 5


def test_a_launchers_only_child_hears_the_signal_and_its_code_is_ours(tmp_path):
    """As accelerate's launcher of one process: it knows no signals, waits, and makes of every failure a 1."""
    child = (
        "import signal, sys\n"
        "from mllm.errors import Preempted\n"
        "from mllm.utils.program import run_main\n"
        "def main(argv):\n"
        "    def hear(*_): raise Preempted('saved')\n"
        "    signal.signal(signal.SIGTERM, hear)\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
        "sys.exit(run_main(main, []))\n"
    )
    launcher = (
        "import os, signal, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "sys.exit(1 if child.wait() else 0)\n"
    )
    assert launching.run_and_wait([sys.executable, "-c", launcher]) == 75


def test_help_loads_no_mmengine_and_listing_no_torch(shop):
    program = """
        import sys
        from mllm.cli.main import main
        assert main(["--help"]) == 0 and main(["--version"]) == 0 and main(["tran"]) == 2
        assert not {"torch", "mmengine", "transformers", "PIL"} & set(sys.modules)
        assert main(["list-cfg"]) == 0 and main(["copy-cfg", "leaf", "there"]) == 0
        assert main(["train", "laef"]) == 1
        assert not {"torch", "mmengine", "transformers"} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
