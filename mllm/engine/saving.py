"""Checkpoints that are whole or say that they are not: a run may be killed at any byte of saving one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mllm.errors import CheckpointError
from mllm.utils.checkpoint_folders import INCOMPLETE, is_complete

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file is too large"}

# torch.save tells no more where its file cannot be written to the end (2.6 to 2.13).
_TORCH_SAYS = ("PytorchStreamWriter failed", "unexpected pos", "basic_ios::clear: iostream error")


@contextmanager
def whole_checkpoint(folder: Path, accelerator: Any, *, writes: bool) -> Iterator[None]:
    """The body writes a checkpoint on every rank; a marker lies in ``folder`` until all of it is on the disk.

    ``writes`` is whether this process puts the marker there. What an earlier, killed save left of the same step is
    removed first. CheckpointError if the disk is full; the pieces are then removed to make room.
    """
    marker = folder / INCOMPLETE
    try:
        if writes:
            if folder.is_dir() and not is_complete(folder):
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            marker.write_text("This checkpoint is being written, or its run was stopped meanwhile: it is not read.\n")
            _to_disk(marker)
        accelerator.wait_for_everyone()
        yield
        accelerator.wait_for_everyone()
        if writes:
            for path in folder.rglob("*"):
                if path.is_file():
                    _to_disk(path)
            marker.unlink()
            _to_disk(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        why = full_disk(error)
        if why is None:
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(
            f"{folder} could not be written: {why}; make room, then go on with --resume_from_checkpoint auto: the "
            "complete checkpoints before it are as they were"
        ) from error


def full_disk(error: BaseException) -> str | None:
    """Why there is no room, if that is what ``error`` says; torch and safetensors wrap the system's error in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return _FULL[error.errno]
        text = str(error)
        for number, why in _FULL.items():
            if f"os error {number})" in text or os.strerror(number) in text:
                return why
        if any(words in text for words in _TORCH_SAYS):
            return "the disk is full, or gone"
        error = error.__cause__ or error.__context__
    return None


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
