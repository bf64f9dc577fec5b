"""Logging of the programs: rank 0 speaks, the others only when something is wrong, secrets are hidden.

Library code only calls `get_logger`; ``pipeline`` and ``cli`` call `setup_logging` once.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from mllm.utils.distributed import is_main_process, rank, world_size
from mllm.utils.redact import redact_text

_ROOT = "mllm"


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact_text(super().format(record))


def get_logger(name: str = _ROOT) -> logging.Logger:
    """The logger of a module: ``get_logger(__name__)``; always below ``mllm``."""
    return logging.getLogger(name if name == _ROOT or name.startswith(_ROOT + ".") else f"{_ROOT}.{name}")


def setup_logging(level: str = "info", *, file: str | Path | None = None) -> logging.Logger:
    """Give the ``mllm`` logger its handlers: stderr, and on rank 0 ``file``. A second call replaces the first's.

    Ranks other than 0 let only warnings through, with their number.
    """
    logger = logging.getLogger(_ROOT)
    # peft imports it wherever it is installed; on a CPU it then warns of kernels that it looks for on a hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    main = is_main_process()
    where = "" if world_size() == 1 else f"[rank {rank()}] "
    formatter = _Redacting(f"%(asctime)s %(levelname)s {where}%(name)s: %(message)s", "%H:%M:%S")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None and main:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    logger.setLevel(level.upper() if main else max(logging.WARNING, logging.getLevelName(level.upper())))
    logger.propagate = False
    return logger


def log_on_main(logger: logging.Logger, message: str, *arguments: object) -> None:
    """One line for the person who started the run, whatever the number of processes; shown by default."""
    if is_main_process():
        logger.warning(message, *arguments)
