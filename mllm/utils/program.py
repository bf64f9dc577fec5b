"""The frame around every program: a user's mistake is one sentence and an exit code, never a traceback."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from mllm.errors import ConfigError, Preempted, UserError
from mllm.utils.distributed import rank, world_size
from mllm.utils.redact import redact_text

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: run it again
# Launchers turn every exit code into 1: the main process leaves its own in the file that this variable names.
EXIT_CODE_FILE = "MLLM_EXIT_CODE_FILE"


class UsageError(ConfigError):
    """The command line itself is wrong: a verb, a flag, a missing argument; exit code 2."""


def run_main(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None, *, name: str = "mllm") -> int:
    """Call ``main(argv)`` and give the exit code.

    0, 1 after a UserError, 2 after a UsageError, 75 where training was asked to stop, 130 after Ctrl-C.
    ``argv`` is without the program's name and defaults to the process' own. ``--debug`` anywhere on it shows the
    traceback of a UserError; every other exception is a bug and is not caught.
    """
    code = _run(main, list(sys.argv[1:] if argv is None else argv), name)
    if os.environ.get(EXIT_CODE_FILE) and rank() == 0:
        Path(os.environ[EXIT_CODE_FILE]).write_text(str(code))
    return code


def _run(main: Callable[[list[str]], int | None], words: list[str], name: str) -> int:
    try:
        return main(words) or 0
    except UserError as error:
        if "--debug" in words:
            traceback.print_exc()
        if isinstance(error, Preempted) and rank() != 0:
            return EXIT_PREEMPTED
        who = name if world_size() == 1 else f"{name} (rank {rank()})"
        _close_progress_bars()
        sentence = " ".join(redact_text(str(error)).split("\n"))
        if isinstance(error, Preempted):
            sys.stderr.write(f"{name}: {sentence}\n")
            return EXIT_PREEMPTED
        sys.stderr.write(f"{who}: error: {sentence}\n")
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has left (`mllm list-cfg | head`); Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def leave(code: int) -> NoReturn:
    """End the process: where it was one of several, without the destructors of C++ libraries.

    Threads of torch's communication that still run then would abort it (seen with torch 2.13, gloo and DeepSpeed, on a
    busy machine): a run that has done its work would count as failed.
    """
    if world_size() > 1 or "MASTER_PORT" in os.environ:
        atexit._run_exitfuncs()  # CPython 3.10 to 3.12
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _close_progress_bars() -> None:
    """Give the sentence a line of its own: a bar leaves the cursor in the middle of one (``_instances``: tqdm 4.70)."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
