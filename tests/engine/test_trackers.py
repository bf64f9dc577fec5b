"""What trackers are told, and that none of them can ask, leak, or end a run."""

import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
import threading
from types import SimpleNamespace

import pytest
import tiny
from clocked import slow_trainer
from launch import FINETUNE, REPOSITORY, checked, run
from mmengine.config import Config

from mllm.config.arguments import Seq2SeqArguments, build_arguments
from mllm.config.report_to import chosen_trackers
from mllm.engine import trackers
from mllm.engine.log_line import write_lines
from mllm.engine.tracker_wandb import reason_for_offline
from mllm.engine.trackers import Trackers, project_name, run_name, tag, tracked_config
from mllm.errors import ConfigError
from mllm.utils import reachable
from mllm.utils.logging import setup_logging
from mllm.utils.reachable import is_reachable

KEY = "a" * 40
SECRET = "hf_" + "x" * 20
CURVES = {
    "train/loss",
    "train/learning_rate",
    "train/tokens_per_second",
    "train/samples_per_second",
    "train/data_wait",
    "train/memory_gb",
    "train/eta_seconds",
    "eval/acc@0.5",
    "test/acc@0.5",
}
VARIABLES = re.compile(
    r"^(WANDB|TRACKIO|MLFLOW|MLLM_GROUP|TENSORBOARD|HF_MLFLOW|https?_proxy|all_proxy)", re.IGNORECASE
)


@pytest.fixture(autouse=True)
def no_tracker_is_set_up(monkeypatch, tmp_path):
    for name in [name for name in os.environ if VARIABLES.match(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def server():
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nobody():
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def train(folder, *names, **changes):
    """A run of three steps with an evaluation and a test set in an empty folder, without a keyboard."""
    folder.mkdir(exist_ok=True)
    training = {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 3, "do_predict": True, "sample_count": 0}
    (folder / "walk.py").write_text(tiny.config_text(folder / "out", training_args={**training, **changes}))
    words = [FINETUNE, "walk.py", "--report_to", *names, "--hub_token", SECRET, "--disable_tqdm", "true"]
    done = checked(run(words, cwd=folder, stdin=subprocess.DEVNULL))
    return done.stdout + done.stderr


LOG_ONCE = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from mmengine.config import Config
from mllm.config.arguments import Seq2SeqArguments
from mllm.engine.trackers import Trackers
from mllm.utils.logging import setup_logging
setup_logging()
trackers = Trackers(Seq2SeqArguments(output_dir="out", use_cpu=True, report_to=sys.argv[1]), Config({{}}))
trackers.log({{"loss": 1.0}}, 1)
trackers.finish()
"""


def log_once(folder, name):
    """What a program says that logs one number and trains nothing."""
    (folder / "out").mkdir()
    done = checked(run(["-c", LOG_ONCE, name], cwd=folder, stdin=subprocess.DEVNULL))
    return done.stdout + done.stderr


def installed(name):
    return pytest.importorskip(name, reason=f"pip install 'mllm[{name}]'")


def rows(database, query):
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def secret_in(folder):
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


# Names.


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, []),
        ("none", []),
        (["none"], []),
        ("", []),
        ([], []),
        ("tensorboard", ["tensorboard"]),
        ("TensorBoard, wandb", ["tensorboard", "wandb"]),
        (["wandb,trackio", "mlflow", "wandb"], ["wandb", "trackio", "mlflow"]),
        (("mlflow",), ["mlflow"]),
        ("all", ["tensorboard", "wandb", "trackio", "mlflow"]),
    ],
)
def test_names_of_trackers_in_every_form(monkeypatch, given, names):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert chosen_trackers(given) == names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wanbd", "report_to: 'wanbd' is no tracker; did you mean 'wandb'"),
        (
            ["tensorboard", "comet_ml"],
            "'comet_ml' is no tracker; known: all, mlflow, none",
        ),
        ("none,tensorboard", "'none' stands alone"),
        (["tensorboard", None], "'none' stands alone"),
        (5, "report_to=5: expected names"),
        ([5], r"report_to=\[5\]: expected names"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_read(tmp_path, given, message):
    with pytest.raises(ConfigError, match=message) as raised:
        build_arguments({"output_dir": str(tmp_path), "report_to": given, "use_cpu": True})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(monkeypatch, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(
        ConfigError, match=re.escape(f"report_to: {name!r} is not installed: pip install 'mllm[{name}]'")
    ):
        chosen_trackers(name)
    assert chosen_trackers("all") == []


def test_a_run_is_called_after_its_config_and_its_folder():
    assert run_name("config/toy_rec.py", "work_dirs/a7") == "toy_rec-a7"
    assert run_name("config/toy_rec.py", "work_dirs/toy_rec/") == "toy_rec"
    assert run_name(None, "work_dirs/a7") == "a7"


def test_the_project_is_the_flags_then_the_environments_then_ours(monkeypatch):
    assert project_name("mllm", "WANDB_PROJECT") == "mllm"
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert project_name("mllm", "WANDB_PROJECT") == "theirs"
    assert project_name("asked", "WANDB_PROJECT") == "asked"


def test_tags_part_training_from_each_kind_of_evaluation():
    names = ("loss", "eval_acc@0.5", "test_acc", "multitest_voc_acc", "train_loss", "evaluated")
    expected = ["train/loss", "eval/acc@0.5", "test/acc", "multitest/voc_acc", "train/train_loss", "train/evaluated"]
    assert [tag(name) for name in names] == expected


def test_the_whole_config_is_told_without_secrets(tmp_path):
    args = Seq2SeqArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", hub_token=SECRET)
    cfg = Config({"data_args": {"url": f"https://me:{SECRET}@host/x", "api_key": "k"}, "training_args": {"seed": 1}})
    found = tracked_config(cfg, args)
    assert SECRET not in json.dumps(found)
    assert found["data_args"] == {"url": "https://***@host/x", "api_key": "***"}
    assert found["training_args"]["seed"] == 42
    assert found["world_size"] == 1


# What one failing tracker does to the others, and to the run.


class Told(trackers.Writer):
    """Keeps what it is told; fails at what ``fails`` names."""

    fails = ()

    def __init__(self):
        self.calls = []

    def __getattribute__(self, action):
        if action not in ("start", "log", "saved", "end"):
            return super().__getattribute__(action)

        def call(*values):
            self.calls.append((action, *values))
            if action in self.fails:
                raise RuntimeError("the disk\nis full")

        return call


class Failing(Told):
    name = "wandb"
    fails = ("log",)


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Trackers of a Failing "wandb" and a Told "mlflow"."""
    monkeypatch.setattr(trackers, "WRITERS", {"wandb": Failing, "mlflow": Told})
    monkeypatch.setattr(trackers.atexit, "register", lambda *call, **options: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    args = Seq2SeqArguments(output_dir=str(tmp_path / "a7"), use_cpu=True, report_to="wandb,mlflow")
    return Trackers(args, Config({}))


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(told, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mllm"), "propagate", True)
    told.log({"loss": 1.0}, 1)
    told.log({"loss": 0.5, "text": "no number", "flag": True}, 2)
    told.finish()
    # By record: other tests may have left the handler in place twice.
    told_once = {id(one): one.getMessage() for one in caplog.records if one.name.startswith("mllm.engine.track")}
    (other,) = told_once.values()
    assert other == "wandb fails and is left out, the run goes on without it: RuntimeError: the disk is full"


def test_a_tracker_is_told_numbers_by_step_and_ends_once(told):
    failing, other = told.waiting
    told.log({"loss": 1.0}, 1)
    told.log({"eval_acc": 0.5, "text": "no number", "flag": True}, 2)
    told.finish(failed=True)
    told.finish()
    assert [call[0] for call in failing.calls] == ["start", "log"]
    assert other.calls[1:] == [("log", {"train/loss": 1.0}, 1), ("log", {"eval/acc": 0.5}, 2), ("end", True)]


def test_runs_of_a_sweep_carry_its_name(told, monkeypatch):
    monkeypatch.setenv("MLLM_GROUP", "rates")
    other = told.waiting[1]
    told.log({}, 0)
    (_, run_of_a_sweep), *_ = other.calls
    assert (run_of_a_sweep.name, run_of_a_sweep.project, run_of_a_sweep.group) == ("a7", "mllm", "rates")
    assert run_of_a_sweep.config["training_args"]["output_dir"].endswith("a7")


def test_a_run_that_logs_nothing_begins_nothing(told):
    told.finish()
    assert [writer.calls for writer in told.waiting] == [[], []]


def test_transformers_makes_no_trackers_of_its_own(told):
    """Those would ask for a key, and log secrets."""
    assert told.args.report_to == []
    added = []
    told.attach(SimpleNamespace(is_world_process_zero=lambda: True, add_callback=added.append))
    assert told.args.report_to == ["wandb", "mlflow"]
    assert added == [told]
    told.attach(SimpleNamespace(is_world_process_zero=lambda: False, add_callback=added.append))
    assert added == [told]


# Whether there is a network.


def test_an_address_that_nobody_listens_at_is_not_reachable(server, nobody):
    assert is_reachable(server)
    assert is_reachable(server.removeprefix("http://")) is True
    assert not is_reachable(nobody)
    for wrong in ("", "nonsense", "http://", "http://127.0.0.1:x", "http://[::1"):
        assert not is_reachable(wrong), wrong


def test_a_name_server_that_does_not_answer_is_waited_for_in_bounded_time(monkeypatch):
    forever, server = threading.Event(), socket.socket()
    monkeypatch.setattr(reachable.socket, "create_connection", lambda *_, **__: forever.wait() and server)
    assert not is_reachable("http://host.invalid", seconds=0.01)
    forever.set()


def test_a_proxy_is_the_way_out(monkeypatch, server, nobody):
    monkeypatch.setenv("https_proxy", server)
    assert is_reachable("https://host.invalid")
    monkeypatch.setenv("https_proxy", nobody)
    assert not is_reachable("https://host.invalid")


def test_wandb_is_online_only_with_a_key_and_a_network(tmp_path, server, nobody):
    home = {"HOME": str(tmp_path)}
    assert reason_for_offline("online", server, None, home).startswith("no API key")
    assert reason_for_offline("online", server, None, {**home, "WANDB_API_KEY": KEY}) is None
    assert reason_for_offline("online", server, KEY, home) is None
    offline = reason_for_offline("online", nobody, KEY, home)
    assert offline == f"{nobody.removeprefix('http://')} cannot be reached"
    for mode in ("offline", "disabled", "dryrun"):
        assert reason_for_offline(mode, nobody, None, home) is None


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
def test_wandb_finds_its_key_in_a_netrc_file(tmp_path, server, name):
    path = tmp_path / name
    path.write_text(f"machine other.host\n  login user\n  password {KEY}\n")
    path.chmod(0o600)
    environment = {"HOME": str(tmp_path), **({"NETRC": str(path)} if name == "elsewhere" else {})}
    assert reason_for_offline("online", server, None, environment) is not None
    path.write_text(path.read_text() + f"machine {server.removeprefix('http://')}\n  login user\n  password {KEY}\n")
    assert reason_for_offline("online", server, None, environment) is None
    path.write_text("machine\nlogin")
    assert reason_for_offline("online", server, None, environment).startswith("no API key")


# Real runs.


@pytest.fixture(scope="module")
def tensorboard_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorboard")
    return folder, train(folder, "tensorboard")


def test_tensorboard_has_the_curves_and_the_config_below_the_output_folder(tensorboard_run):
    accumulator = installed("tensorboard.backend.event_processing.event_accumulator")
    folder, _ = tensorboard_run
    (events,) = (folder / "out" / "runs").glob("*/events.*")
    found = accumulator.EventAccumulator(str(events)).Reload()
    assert set(found.Tags()["scalars"]) >= CURVES
    assert [event.step for event in found.Scalars("train/tokens_per_second")] == [1, 2, 3]
    config = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"DrawnREC"' in config
    assert {path.name for path in folder.iterdir()} <= {"out", "walk.py", "__pycache__"}
    assert secret_in(folder) == []


def test_the_log_has_a_line_for_each_row_and_no_dict(tensorboard_run):
    folder, output = tensorboard_run
    lines = re.findall(r"INFO mllm\.train: (.*)", output)
    assert [line[:9] for line in lines[:3]] == ["step 1/3 ", "step 2/3 ", "step 3/3 "]
    for word in ("loss", "lr", "grad", "tok/s", "samples/s", "data", "mem"):
        assert word in lines[0]
    assert "done ~" in lines[0]
    assert "done ~" not in lines[2]
    assert lines[3].startswith("step 3/3  eval  acc@0.5 ")
    assert any("training took" in line for line in lines)
    assert "{'" not in output
    history = json.loads((folder / "out" / "trainer_state.json").read_text())["log_history"]
    assert all(
        isinstance(row[name], float) for row in history[:3] for name in ("data_wait", "memory_gb", "eta_seconds")
    )


@pytest.fixture
def logging_comes_back():
    """What ``setup_logging`` changes is undone after the test."""
    logger = logging.getLogger("mllm")
    before = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def test_the_progress_bar_stays_beside_the_lines(tmp_path, capsys, logging_comes_back):
    trainer = slow_trainer(tmp_path, eval_strategy="no", save_strategy="no")
    setup_logging()
    write_lines(trainer)
    trainer.train()
    captured = capsys.readouterr()
    assert "INFO mllm.train: step 2/6  loss" in captured.err
    assert "6/6 [" in captured.err
    assert "{'" not in captured.out + captured.err


def test_wandb_without_a_key_is_offline_below_the_output_folder(tmp_path, monkeypatch):
    installed("wandb")
    monkeypatch.setenv("MLLM_GROUP", "rates")
    monkeypatch.setenv("WANDB_MODE", "online")
    output = train(tmp_path, "wandb")
    assert len(re.findall(r"wandb: offline \(no API key", output)) == 1
    (record,) = (tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb")
    content = record.read_bytes()
    assert all(word.encode() in content for word in ("rates", "walk-out", "train/tokens_per_second", "DrawnREC"))
    assert secret_in(tmp_path) == []
    assert not (tmp_path / "wandb").exists()


def test_wandb_goes_offline_where_its_server_cannot_be_reached(tmp_path, monkeypatch, nobody):
    installed("wandb")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", nobody)
    output = log_once(tmp_path, "wandb")
    assert len(re.findall(r"wandb: offline \(127.0.0.1:\d+ cannot be reached\)", output)) == 1
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert KEY not in output


def test_trackio_keeps_a_run_on_this_machine(tmp_path, monkeypatch):
    installed("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLLM_GROUP", "rates")
    train(tmp_path, "trackio")
    database = tmp_path / "trackio" / "mllm.db"
    logged = [json.loads(text) for (text,) in rows(database, "select metrics from metrics")]
    assert {name for row in logged for name in row} >= CURVES
    ((name, config),) = rows(database, "select run_name, config from configs")
    assert (name, json.loads(config)["_Group"]) == ("walk-out", "rates")
    assert secret_in(tmp_path) == []


def test_mlflow_keeps_the_runs_of_a_sweep_in_one_database(tmp_path, monkeypatch):
    installed("mlflow")
    monkeypatch.setenv("MLLM_GROUP", "rates")
    train(tmp_path, "mlflow")
    database = tmp_path / "mlflow.db"
    assert {name for (name,) in rows(database, "select key from metrics")} >= {one.replace("@", "_") for one in CURVES}
    assert rows(database, "select name, status from runs") == [("walk-out", "FINISHED")]
    assert ("data_args.train.type", "DrawnREC") in rows(database, "select key, value from params")
    assert rows(database, "select value from tags where key = 'group'") == [("rates",)]
    assert [name for (name,) in rows(database, "select name from experiments")] == ["Default", "mllm"]
    assert secret_in(tmp_path) == []
    assert not (tmp_path / "mlruns").exists()


def test_mlflow_keeps_a_run_in_its_folder_where_its_server_cannot_be_reached(tmp_path, monkeypatch, nobody):
    installed("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    output = log_once(tmp_path, "mlflow")
    assert len(re.findall(r"mlflow: http://127.0.0.1:\d+ cannot be reached; the run is kept in", output)) == 1
    assert rows(tmp_path / "out" / "mlflow.db", "select key, value from metrics") == [("train/loss", 1.0)]
