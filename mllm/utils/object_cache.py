"""Copies of remote files on a local disk.

Images, in the folder ``MLLM_OBJECT_CACHE`` (unset: none are kept): taken for unchangeable, so that a hit asks the store
nothing; delete the folder after putting other images under old names. It grows until the disk has less than
``MLLM_OBJECT_CACHE_FREE_GB`` (5) left and then stays as it is: epochs read in ever new orders, so what were thrown out
would be needed again as soon as what came in its place. A damaged copy is fetched anew.

Annotation files, in ``MLLM_CACHE`` (``work_dirs/.index``, beside the indices of their rows): the store is asked for the
ETag at every start, and a changed file is copied anew under another name.

Many processes, on many machines, may share the folders: files appear whole.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO

from mllm.errors import ConfigError
from mllm.utils.logging import get_logger
from mllm.utils.object_settings import find_store, parse_url
from mllm.utils.object_store import S3Backend, backend
from mllm.utils.storage import cache_folder
from mllm.utils.transfer import one_at_a_time

logger = get_logger(__name__)
_DIGEST_BYTES = 16


def get_unchanging(url: str) -> bytes:
    """The bytes of an object that never changes, from ``MLLM_OBJECT_CACHE`` if they are there."""
    folder = os.environ.get("MLLM_OBJECT_CACHE")
    if not folder:
        return backend().get(url)
    name = hashlib.sha256(_identity(url).encode()).hexdigest()
    path = Path(folder).expanduser() / name[:2] / name[2:]
    kept = _kept(path)
    if kept is None:
        kept = backend().get(url)
        _keep(path, kept)
    return kept


def local_copy(url: str) -> Path:
    """The copy of an object as it is now; processes that want the same one wait for the first to fetch it."""
    try:
        if importlib.util.find_spec("boto3") is None:
            return _copy_without_state(url)
        size, tag = S3Backend().state(url)
        path = _place(url, f"{tag}\0{size}")
        with one_at_a_time(path.with_name(f".{path.name}.lock")):
            if not _is_whole(path, size):
                with _appearing(path) as stream:
                    S3Backend().download(url, stream.name)
        return path
    except OSError as error:
        if error.errno is None:  # the store's
            raise
        fault = f"{url}: its copy cannot be written to {cache_folder()} ({error.strerror})"
        raise OSError(f"{fault}; set MLLM_CACHE to a folder on another disk") from error


def _copy_without_state(url: str) -> Path:
    """petrel_client without boto3 tells no ETag: the content is fetched at every start and names its copy."""
    content = backend().get(url)
    path = _place(url, hashlib.sha256(content).hexdigest())
    if not _is_whole(path, len(content)):
        with _appearing(path) as stream:
            stream.write(content)
    return path


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _identity(url: str) -> str:
    """The same for all addresses of one object, another for every store."""
    cluster, bucket, key = parse_url(url)
    store = find_store(cluster)
    return "\0".join((store.endpoint or store.name or "", bucket, key))


def _place(url: str, state: str) -> Path:
    name = Path(re.sub(r"[^\w.-]+", "-", url.rpartition("/")[2]))
    digest = hashlib.sha256(f"{_identity(url)}\0{state}".encode()).hexdigest()[:24]
    return cache_folder() / f"{name.stem[:80]}-{digest}{name.suffix[:16]}"


def _kept(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            digest, content = stream.read(_DIGEST_BYTES), stream.read()
    except OSError:
        return None
    return content if digest == _digest(content) else None


def _keep(path: Path, content: bytes) -> None:
    """A copy that cannot be kept costs the next read a request and nothing else."""
    free = _free_bytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free - len(content) < free:
            _say_once(f"MLLM_OBJECT_CACHE: less than {free / 1e9:g} GB are left on its disk; no more images are kept")
            return
        # No wait for the disk: half a file after a crash is told by its digest.
        with _appearing(path, durable=False) as stream:
            stream.write(_digest(content) + content)
    except OSError as error:
        _say_once(f"MLLM_OBJECT_CACHE: images cannot be kept: {error}")


@contextmanager
def _appearing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file to fill that bears its name when the body has ended well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _free_bytes() -> float:
    text = os.environ.get("MLLM_OBJECT_CACHE_FREE_GB", "").strip() or "5"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigError(f"MLLM_OBJECT_CACHE_FREE_GB={text!r}: expected a number from 0")
    return value * 1e9


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


@lru_cache(maxsize=16)
def _say_once(sentence: str) -> None:
    logger.warning("%s", sentence)
