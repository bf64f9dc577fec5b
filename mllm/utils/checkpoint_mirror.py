"""Checkpoints in a second place: ``MIRROR/<name of output_dir>/checkpoint-N/…`` in a store or another folder.

A copy is complete when ``_COMPLETE`` lies beside its files: it is written last, removed first, and lists every file
with its bytes. What has none is never read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from mllm.errors import CheckpointError, ConfigError
from mllm.utils.checkpoint_folders import INCOMPLETE, is_complete
from mllm.utils.files import read_json
from mllm.utils.logging import get_logger, log_on_main
from mllm.utils.storage import is_remote, join, resolve_path
from mllm.utils.transfer import (
    get_bytes,
    get_file,
    list_files,
    one_at_a_time,
    put_bytes,
    put_file,
    remove_file,
    remove_folder,
)

MARKER = "_COMPLETE"
# Of the run itself; resuming compares with what they tell.
BESIDE = ("run.json", "config.py")
_FORMAT = 1
_STATE = "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
logger = get_logger(__name__)


def mirror_root(mirror_to: str, output_dir: str | os.PathLike[str]) -> str:
    """Where a run's checkpoints are mirrored; ConfigError if that is within ``output_dir``, or around it."""
    folder = Path(output_dir).expanduser().absolute()
    root = join(resolve_path(mirror_to), folder.name)
    if is_remote(root):
        return root
    there, here = Path(root).resolve(), folder.resolve()
    if there == here or here in there.parents or there in here.parents:
        raise ConfigError(f"mirror_to {mirror_to!r} would put copies into {str(there)!r}, output_dir is {str(here)!r}")
    return str(Path(root).absolute())


def copy_checkpoint(source: Path, target: str, beside: Iterable[Path] = ()) -> int:
    """Copy the folder ``source``, and next to it the files ``beside``; gives the bytes. OSError if it failed."""
    files = list_files(str(source))
    if not is_complete(source):
        raise OSError(f"{source} is no complete checkpoint (any more)")
    remove_file(join(target, MARKER))
    if not is_remote(target):  # a folder may be resumed from by its path
        put_bytes(b"This checkpoint is being copied, or its copying was stopped.\n", join(target, INCOMPLETE))
    for name in list_files(target).keys() - files.keys() - {INCOMPLETE}:
        remove_file(join(target, name))
    for name in sorted(files):
        put_file(source / name, join(target, name))
    for path in beside:
        if path.is_file():
            put_file(path, join(_parent(target), path.name))
    if list_files(str(source)) != files:
        raise OSError(f"{source} was changed while it was copied")
    put_bytes(json.dumps({"format": _FORMAT, "files": files}, indent=1).encode(), join(target, MARKER))
    if not is_remote(target):
        remove_file(join(target, INCOMPLETE))
    return sum(files.values())


def prune_mirror(root: str, keep: Iterable[str], newest: int) -> list[str]:
    """Delete the copies of checkpoints before ``newest`` that are not in ``keep``; gives their names."""
    kept = set(keep)
    names = {name.partition("/")[0] for name in list_files(root)}
    steps = {name: int(match.group(1)) for name in names if (match := _CHECKPOINT.fullmatch(name))}
    gone = sorted(name for name, step in steps.items() if step < newest and name not in kept)
    for name in gone:
        remove_file(join(root, name, MARKER))
        remove_folder(join(root, name))
    return gone


def mirrored_checkpoints(root: str) -> list[str]:
    """The names of the complete checkpoints of a run, by their step."""
    steps = []
    for name in list_files(root):
        folder, _, file = name.rpartition("/")
        match = _CHECKPOINT.fullmatch(folder)
        if match and file == MARKER:
            steps.append((int(match.group(1)), folder))
    return [name for _, name in sorted(steps)]


def fetch_last_checkpoint(mirror_to: str, output_dir: str | os.PathLike[str]) -> Path | None:
    """Fetch the last complete checkpoint of the run from its mirror; None if there is none.

    CheckpointError if the mirror cannot be asked: a fresh start would then be a guess.
    """
    root = mirror_root(mirror_to, output_dir)
    try:
        found = mirrored_checkpoints(root)
    except OSError as error:
        raise CheckpointError(f"the mirror of output_dir cannot be read: {error}") from error
    return fetch_checkpoint(join(root, found[-1]), output_dir) if found else None


def fetch_checkpoint(source: str, output_dir: str | os.PathLike[str]) -> Path:
    """Fetch ``…/checkpoint-N`` into ``output_dir``, with the best checkpoint that it names; gives the folder there.

    The same one, complete, that is there already is kept. Processes that want the same one wait for the first.

    Raises:
        CheckpointError: no such checkpoint, no complete one, the store does not give it, no room, another run's
            ``checkpoint-N`` in ``output_dir``.
    """
    root, name = _split(source)
    folder = Path(output_dir).expanduser()
    try:
        with one_at_a_time(folder / ".fetch.lock"):
            fetched = _fetch(root, name, folder)
            best = _best_of(fetched)
            if best and best in mirrored_checkpoints(root):
                _fetch(root, best, folder)
            for one in BESIDE:
                if one in list_files(root) and not (folder / one).exists():
                    get_file(join(root, one), folder / one)
    except OSError as error:
        raise CheckpointError(f"{source} cannot be fetched: {error}") from error
    return fetched


def _fetch(root: str, name: str, folder: Path) -> Path:
    target = folder / name
    files = _read_marker(root, name)
    if is_complete(target):
        if (target / _STATE).read_bytes() != get_bytes(join(root, name, _STATE)):
            raise CheckpointError(f"{target} is of another run than {join(root, name)}; choose another --output_dir")
        return target
    size = sum(files.values())
    if shutil.disk_usage(folder).free < size:
        raise CheckpointError(f"{join(root, name)} has {size / 1e9:.2f} GB, and {folder} has no room for it")
    log_on_main(logger, "fetching %s (%.2f GB)", join(root, name), size / 1e9)
    part = folder / f".{name}.{uuid.uuid4().hex}.part"
    try:
        for one, expected in sorted(files.items()):
            get_file(join(root, name, one), part / one)
            if (part / one).stat().st_size != expected:
                raise CheckpointError(f"{join(root, name, one)}: not the {expected} bytes that {MARKER} tells of")
        if not is_complete(part):
            raise CheckpointError(f"{join(root, name)} is no checkpoint to resume from: it has no {_STATE}")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _read_marker(root: str, name: str) -> dict[str, int]:
    where = join(root, name)
    try:
        text = get_bytes(join(where, MARKER))
    except FileNotFoundError as error:
        what = f"was not copied to its end (it has no {MARKER})" if list_files(where) else "is not there"
        known = ", ".join(mirrored_checkpoints(root)[-5:]) or "none"
        raise CheckpointError(f"{where} {what}; complete ones in {root}: {known}") from error
    try:
        files = {str(one): int(size) for one, size in json.loads(text)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{join(where, MARKER)} cannot be read; take another checkpoint") from error
    for one in files:
        if one.startswith("/") or ".." in one.split("/"):
            raise CheckpointError(f"{join(where, MARKER)} names {one!r}, which is outside of the checkpoint")
    return files


def _best_of(checkpoint: Path) -> str | None:
    best = read_json(checkpoint / _STATE).get("best_model_checkpoint")
    name = Path(best).name if best else ""
    return name if _CHECKPOINT.fullmatch(name) and name != checkpoint.name else None


def _split(source: str) -> tuple[str, str]:
    where = resolve_path(source).rstrip("/")
    name = where.rpartition("/")[2]
    if not _CHECKPOINT.fullmatch(name):
        raise CheckpointError(f"{source!r}: expected the address of a checkpoint, …/checkpoint-N")
    return _parent(where), name


def _parent(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0]
