"""Which ``checkpoint-N`` folders of a run are whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mllm.utils.logging import get_logger, log_on_main

# In a checkpoint that is being written; a run that was killed meanwhile leaves it.
INCOMPLETE = "checkpoint-is-incomplete.txt"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_logger = get_logger(__name__)


def last_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The complete ``checkpoint-N`` with the largest N; those that a stopped job left half written are named."""
    root = Path(folder)
    if not root.is_dir():
        return None
    numbered = [(int(m.group(1)), one) for one in root.iterdir() if (m := _CHECKPOINT.fullmatch(one.name))]
    for _, path in sorted(numbered, reverse=True):
        if is_complete(path):
            return path
        log_on_main(_logger, "%s is incomplete, its run was stopped while it was written: it is skipped", path)
    return None


def is_complete(path: Path) -> bool:
    """Whether the folder is a checkpoint to resume from that was written to its end."""
    return path.is_dir() and (path / "trainer_state.json").is_file() and not (path / INCOMPLETE).exists()
