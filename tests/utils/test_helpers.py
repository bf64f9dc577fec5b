"""Atomic files, JSON lines, secrets, program frame, imports, ranks, logging."""

import json
import logging
import os

import pytest

from mllm.errors import CheckpointError, ConfigError, DataError, Preempted
from mllm.utils import distributed
from mllm.utils.files import atomic_open, atomic_write, read_json, read_jsonl
from mllm.utils.imports import require
from mllm.utils.logging import get_logger, setup_logging
from mllm.utils.program import UsageError, run_main
from mllm.utils.redact import redact, redact_command, redact_text


def test_an_atomic_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "new" / "a.txt"
    atomic_write(path, "old")

    def fail():
        with atomic_open(path) as stream:
            stream.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    atomic_write(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_json_lines_have_numbers_and_broken_ones_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n[2]\n')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (3, [2])]
    path.write_text('{"a": 1}\n{"a": 1,}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2:\d+: broken JSON: .* near"):
        list(read_jsonl(path))
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_jsonl(path))
    with pytest.raises(DataError, match="no such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))


def test_broken_json_is_named_by_line_and_column(tmp_path):
    """Line 2 is ``  "a": ]``: the bracket stands in column 8."""
    (tmp_path / "a.json").write_text('{\n  "a": ]\n}')
    with pytest.raises(DataError, match=r"a\.json:2:8: broken JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="broken JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ({"hub_token": "abc"}, {"hub_token": "***"}),
        ({"a": [{"password": "x", "API_KEY": "y", "client_secret": "z"}]},) * 1
        + ({"a": [{"password": "***", "API_KEY": "***", "client_secret": "***"}]},),
        ({"hub_token": None, "token": ""}, {"hub_token": None, "token": ""}),
        ({"pad_token": "<pad>", "bos_token": "<s>", "image_token": "<image>"},) * 2,
        ({"max_new_tokens": 8, "num_image_tokens": 576, "token_type": "abc", "tokenizer": "a/b"},) * 2,
        ({"some_token": "a1b2c3d4e5f6a7b8"}, {"some_token": "***"}),
        ("x hf_abcdefghijkl y", "x *** y"),
        (("sk-abcdefghijkl", "AKIAABCDEFGHIJKLMNOP"), ("***", "***")),
        ("https://me:pw@host/x", "https://***@host/x"),
        ("task-abcdefghijkl", "task-abcdefghijkl"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(value, hidden):
    before = json.dumps(value)
    assert redact(value) == hidden
    assert json.dumps(value) == before


def test_secrets_in_text_and_command_lines():
    assert redact_text("run --hub_token abc --seed 3 password=x 'api_key': 'y'") == (
        "run --hub_token *** --seed 3 password=*** 'api_key': '***'"
    )
    argv = ["x.py", "--hub_token", "abc", "--hub_token=abc", "--seed", "3", "model_args.api_key=abc", "a=hf_abcdefghij"]
    assert redact_command(argv) == [
        *("x.py", "--hub_token", "***", "--hub_token=***", "--seed", "3", "model_args.api_key=***", "a=***"),
    ]


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("a\nb"), 1), (CheckpointError("a b"), 1), (UsageError("a b"), 2), (None, 0)]
)
def test_a_user_error_is_one_line_and_an_exit_code(capsys, error, code):
    def main(argv):
        if error:
            raise error

    assert run_main(main, [], name="prog") == code
    assert capsys.readouterr().err == ("prog: error: a b\n" if error else "")


def test_a_stopped_run_says_so_once_and_ends_with_a_code_of_its_own(capsys, monkeypatch, tmp_path):
    def main(argv):
        raise Preempted("stopped at step 3")

    monkeypatch.setenv("MLLM_EXIT_CODE_FILE", str(tmp_path / "code"))
    assert run_main(main, [], name="prog") == 75
    assert capsys.readouterr().err == "prog: stopped at step 3\n"
    assert (tmp_path / "code").read_text() == "75"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "code").unlink()
    assert run_main(main, [], name="prog") == 75
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "code").exists()


def test_debug_shows_the_traceback_and_bugs_are_not_caught(capsys):
    def main(argv):
        raise ConfigError("hidden hf_abcdefghijk")

    run_main(main, ["--debug"])
    assert "Traceback" in capsys.readouterr().err
    run_main(main, [])
    assert capsys.readouterr().err == "mllm: error: hidden ***\n"
    with pytest.raises(ZeroDivisionError):
        run_main(lambda argv: 1 / 0, [])


def test_an_interrupt_ends_with_130(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert run_main(main, []) == 130


def test_the_rank_is_named_where_there_are_several(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")

    def main(argv):
        raise DataError("x")

    run_main(main, [])
    assert capsys.readouterr().err == "mllm (rank 1): error: x\n"
    assert (distributed.rank(), distributed.world_size(), distributed.is_main_process()) == (1, 2, False)


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"'not_there' is not installed: pip install 'mllm\[web\]'"):
        require("not_there.sub", "web")
    (tmp_path / "broken_inside.py").write_text("import also_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"could not be imported \(No module named 'also_not_there'\)"):
        require("broken_inside", "web")
    assert require("json", "web") is json


@pytest.fixture
def clean_logger():
    yield
    root = logging.getLogger("mllm")
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.propagate, root.level = True, logging.NOTSET


def test_rank_zero_speaks_and_secrets_are_hidden(capsys, monkeypatch, tmp_path, clean_logger):
    for _ in range(2):  # a second call must not double the lines
        setup_logging("info", file=tmp_path / "logs" / "run.log")
    get_logger("mllm.x").info("token=%s", "abc")
    get_logger("elsewhere").debug("quiet")
    written = (tmp_path / "logs" / "run.log").read_text()
    assert written.endswith("INFO mllm.x: token=***\n")
    assert written.count("\n") == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    capsys.readouterr()
    setup_logging("info")
    get_logger("mllm.x").info("not shown")
    get_logger("mllm.x").warning("shown")
    assert capsys.readouterr().err.endswith("WARNING [rank 1] mllm.x: shown\n")
