"""Files between this machine and a store, or a folder that stands for one; what is remote goes through boto3.

All errors are OSErrors with a sentence, so that who copies may go on with something else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllm.utils.files import atomic_write
from mllm.utils.logging import get_logger
from mllm.utils.storage import is_remote, join

logger = get_logger(__name__)


def list_files(root: str) -> dict[str, int]:
    """Bytes of every file below ``root`` by its name from there, with slashes; empty if there is no such folder."""
    if is_remote(root):
        return dict(_store().files(root))
    top = Path(root)
    return {path.relative_to(top).as_posix(): path.stat().st_size for path in sorted(top.rglob("*")) if path.is_file()}


def put_file(path: Path, target: str) -> None:
    """Copy a file of this machine to ``target``, whole or not at all."""
    if is_remote(target):
        _store().upload(path, target)
    else:
        _copy(path, Path(target))


def get_file(source: str, path: Path) -> None:
    """Copy ``source`` to a file of this machine, whole or not at all."""
    if not is_remote(source):
        _copy(Path(source), path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        _store().download(source, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def get_bytes(source: str) -> bytes:
    """The content of a small file."""
    return _store().get(source) if is_remote(source) else Path(source).read_bytes()


def put_bytes(content: bytes, target: str) -> None:
    """Write a small file, whole or not at all."""
    if is_remote(target):
        _store().put(content, target)
    else:
        atomic_write(target, content)


def remove_file(target: str) -> None:
    """Delete a file; nothing happens where there is none."""
    if is_remote(target):
        _store().remove(target)
    else:
        Path(target).unlink(missing_ok=True)


def remove_folder(root: str) -> None:
    """Delete all that lies below ``root``."""
    if not is_remote(root):
        shutil.rmtree(root, ignore_errors=True)
        return
    for name in list_files(root):
        remove_file(join(root, name))


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Processes that hold the same lock file take turns; on a disk without locks they do not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            logger.info("%s: this disk has no locks (%s)", path, error)
        yield


def _store() -> Any:
    from mllm.utils.object_store import S3Backend

    return S3Backend()


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        shutil.copyfile(path, temporary)
        if temporary.stat().st_size != path.stat().st_size:
            raise OSError(f"{target}: {temporary.stat().st_size} bytes arrived instead of {path.stat().st_size}")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
