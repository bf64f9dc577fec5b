"""``accelerate launch`` around ``finetune.py``, shared by train, eval and predict."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

import mllm
from mllm.config.find import find_config, shipped_folder
from mllm.errors import ConfigError, choices
from mllm.utils.program import EXIT_CODE_FILE, UsageError

_FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def launch(verb: str, doc: str | None, argv: Sequence[str], flags: Sequence[str] = ()) -> int:
    """Run ``finetune.py`` with ``flags`` and the user's words; the child's exit code (128 + N after signal N)."""
    words, launcher_flags = split_launch_flags(argv)
    if "-h" in words or "--help" in words:
        print(f"usage: mllm {verb} CONFIG [--launch 'FLAGS OF accelerate launch'] [--cfg-options ...] [flags]\n\n{doc}")
        return 0
    if not words:
        raise UsageError(f"mllm {verb}: no config given; 'mllm list-cfg' shows what ships")
    if not words[0].startswith("-"):
        find_config(words[0])
    return run_and_wait(command(words, launcher_flags, flags))


def split_launch_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words for ``finetune.py``, and those of ``--launch "..."`` for the launcher."""
    words, launcher_flags, rest = [], [], list(argv)
    while rest:
        word = rest.pop(0)
        name, sign, value = word.partition("=")
        if name != "--launch":
            words.append(word)
            continue
        if not sign and not rest:
            raise UsageError("--launch needs a value: the flags of accelerate launch, in quotes")
        try:
            launcher_flags += shlex.split(value if sign else rest.pop(0))
        except ValueError as error:
            raise UsageError(f"--launch: {error}") from error
    return words, launcher_flags


def command(words: Sequence[str], launcher_flags: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The whole command line; ``flags`` are the verb's and stand first, so that the user's words override them."""
    script = Path(mllm.__file__).parent / "pipeline" / "finetune.py"
    # --quiet: the program has said in one sentence what is wrong; accelerate would add a traceback of its own.
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]
    if not launcher_flags:
        launcher_flags = _defaults()
    return [*launcher, *_with_shipped_file(launcher_flags), str(script), *flags, *words]


def _defaults() -> list[str]:
    """What accelerate would choose by itself, said aloud so that it prints no warning: one process for each GPU.

    Nothing where ``accelerate config`` has written a file, or where there may be accelerators of another kind.
    """
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    if any((cache / "accelerate").glob("default_config.*")) or Path("/dev/kfd").exists():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    gpus = min(present, len([one for one in visible.split(",") if one.strip()])) if visible is not None else present
    plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return ["--num_processes", str(max(gpus, 1)), *plain, *(["--multi_gpu"] if gpus > 1 else [])]


def _with_shipped_file(flags: Sequence[str]) -> list[str]:
    """``--config_file fsdp`` may name a file of ``accelerate_config/``."""
    found = list(flags)
    for index, word in enumerate(found):
        name, sign, value = word.partition("=")
        if name not in ("--config_file", "--config-file"):
            continue
        if not sign and index + 1 == len(found):
            raise UsageError("--launch: --config_file needs a value")
        value = value if sign else found[index + 1]
        path = _accelerate_file(value)
        found[index if sign else index + 1] = f"{name}={path}" if sign else path
    return found


def _accelerate_file(name: str) -> str:
    if Path(name).is_file():
        return name
    folders = [Path("accelerate_config"), shipped_folder("accelerate_config")]
    known = {path.stem: path for folder in reversed(folders) if folder for path in folder.glob("*.yaml")}
    stem = Path(name).name.removesuffix(".yaml")
    if stem not in known:
        raise ConfigError(f"--launch: accelerate config {name!r} not found; {choices(stem, known)}")
    return str(known[stem])


def run_and_wait(words: Sequence[str]) -> int:
    """Run a launcher; what a cluster sends to us reaches the processes of the run, so that they can save and end.

    Gives the exit code of the main process, which launchers do not pass on; 128 + N after signal N.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "exit_code"
        child = subprocess.Popen(words, env={**os.environ, EXIT_CODE_FILE: str(told)})
        asked: list[psutil.Process] = []

        def forward(number: int, _: FrameType | None) -> None:
            # One process: the launcher would die of it and leave its child behind. Several: it ends them by itself.
            ranks = _children(child.pid)
            asked.extend(ranks)
            for one in ranks:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(number)
            if number == signal.SIGTERM and len(ranks) != 1:
                child.send_signal(number)

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            code = _wait(child)
            while any(_is_alive(one) for one in asked):
                time.sleep(0.1)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if code and told.is_file():
            return int(told.read_text())
    return code if code >= 0 else 128 - code


def _wait(child: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the terminal has sent the same to the child: wait for it to end


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
