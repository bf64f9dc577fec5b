"""Who am I among the processes; torch is asked only if something else has loaded it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def _process_group() -> Any:
    """``torch.distributed`` if a process group exists, else None."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed
    return None


def _from_environment(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else default


def rank() -> int:
    """Number of this process among all of the run; 0 without a launcher."""
    group = _process_group()
    return group.get_rank() if group else _from_environment("RANK", 0)


def world_size() -> int:
    """How many processes the run has; 1 without a launcher."""
    group = _process_group()
    return group.get_world_size() if group else _from_environment("WORLD_SIZE", 1)


def is_main_process() -> bool:
    """True in the one process that writes files and logs."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes; nothing to wait for without a process group."""
    group = _process_group()
    if group is not None:
        group.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """Rank 0 runs the body before the others, who then find what it prepared."""
    main = is_main_process()
    if not main:
        barrier()
    try:
        yield
    finally:
        if main:
            barrier()
