"""Copies of checkpoints in a second place, made while training goes on; a store that fails never ends a run."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mllm.engine.together import on_main
from mllm.errors import ConfigError, UserError
from mllm.utils.checkpoint_folders import is_complete
from mllm.utils.checkpoint_mirror import BESIDE, copy_checkpoint, mirror_root, prune_mirror
from mllm.utils.distributed import barrier
from mllm.utils.logging import get_logger
from mllm.utils.object_errors import StoreDown
from mllm.utils.storage import join
from mllm.utils.transfer import put_bytes, remove_file

# How long a run that was asked to stop, and may be killed soon, waits for a copy that has begun.
STOPPED_WAIT_SECONDS = 20.0
_PROBE, _PINS = ".mirror_probe", ".mirroring"
logger = get_logger(__name__)


def mirror_checkpoints(trainer: Any) -> MirrorCheckpoints | None:
    """Give the trainer, on every rank, the callback of ``mirror_to``; None if it is not set, or nothing is trained.

    ConfigError if nothing can be written there; a store that only does not answer now may be there at the first save.
    """
    args = trainer.args
    if not (args.do_train and args.mirror_to):
        return None
    root = mirror_root(args.mirror_to, args.output_dir)
    on_main(trainer.accelerator, lambda: _try_to_write(root))
    callback = MirrorCheckpoints(root, Path(args.output_dir))
    trainer.add_callback(callback)
    return callback


def _try_to_write(root: str) -> None:
    try:
        put_bytes(b"", join(root, _PROBE))
        remove_file(join(root, _PROBE))
    except StoreDown as error:
        logger.warning("mirror_to: %s; training goes on, the first save tries again", error)
    except OSError as error:
        raise ConfigError(f"mirror_to cannot be written: {error}") from error


class MirrorCheckpoints(TrainerCallback):
    """Copies each checkpoint to ``root`` after it is saved; call ``finish`` when the run has nothing left to do.

    The main process copies what lies in ``output_dir``: the pieces of other ranks are among it where all nodes write to
    one shared disk. With ``save_total_limit`` copies go when the checkpoints they were made of are gone.
    """

    def __init__(self, root: str, output_dir: Path) -> None:
        self.root, self.output_dir = root, output_dir
        self.copies = _Copies(self._copy)
        self.last: str | None = None
        self.limited, self.best = False, ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What a killed run left to be copied is dropped."""
        if state.is_world_process_zero:
            shutil.rmtree(self._pins, ignore_errors=True)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to copy the checkpoint of this step."""
        name = f"checkpoint-{state.global_step}"
        if not state.is_world_process_zero or name == self.last or not is_complete(self.output_dir / name):
            return
        self.last, self.limited = name, args.save_total_limit is not None
        self.best = Path(state.best_model_checkpoint or "").name
        self.copies.add(_pinned(self.output_dir / name, self._pins))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A run that stops before its last step may be killed soon: give the copy that has begun a little time."""
        if state.global_step < state.max_steps:
            self.copies.wait(STOPPED_WAIT_SECONDS)
            barrier()

    def finish(self) -> None:
        """Wait for the copies that are under way, and tell how many checkpoints have none."""
        if not self.copies.wait(0):
            logger.warning("waiting until the last checkpoint is mirrored to %s", self.root)
            self.copies.wait()
        if self.copies.failed or self.copies.skipped:
            logger.warning("%s", self.copies.summary(self.root))

    @property
    def _pins(self) -> Path:
        return self.output_dir / _PINS

    def _copy(self, checkpoint: Path) -> None:
        began = time.monotonic()
        beside = [self.output_dir / name for name in BESIDE]
        size = copy_checkpoint(checkpoint, join(self.root, checkpoint.name), beside)
        seconds = time.monotonic() - began
        logger.info("%s copied to %s (%.2f GB in %.0f s)", checkpoint.name, self.root, size / 1e9, seconds)
        if self.limited:
            local = {path.name for path in self.output_dir.glob("checkpoint-*")}
            step = int(checkpoint.name.rpartition("-")[2])
            try:
                prune_mirror(self.root, {*local, self.best}, step)
            except OSError as error:
                logger.warning("older copies are not deleted: %s", error)


class _Copies:
    """One thread that copies a folder at a time; of those that wait only the newest is kept."""

    def __init__(self, copy: Callable[[Path], None]) -> None:
        self.copy = copy
        self.done = self.failed = self.skipped = 0
        self.error = ""
        self._waiting: Path | None = None
        self._busy = False
        self._changed = threading.Condition()

    def add(self, folder: Path) -> None:
        """Copy ``folder`` as soon as the one before is done, then delete it if it is a pin."""
        with self._changed:
            if self._waiting is not None:
                self.skipped += 1
                logger.warning("%s is not mirrored: copying is slower than saving", self._waiting.name)
                _unpin(self._waiting)
            self._waiting = folder
            if not self._busy:
                self._busy = True
                # A daemon: a run that ends with an error does not stay for it.
                threading.Thread(target=self._work, name="mirror", daemon=True).start()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether all is copied, or given up, within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, seconds)

    def summary(self, root: str) -> str:
        """One sentence for the end of a run."""
        lost = self.failed + self.skipped
        why = f": {self.error}" if self.failed else ""
        count = self.done + lost
        return f"{lost} of {count} checkpoints were not mirrored to {root} (output_dir has what it keeps){why}"

    def _work(self) -> None:
        try:
            while (folder := self._next()) is not None:
                self._copy_one(folder)
        except BaseException:  # a bug; who waits must hear that nobody works any more
            with self._changed:
                self.failed += 1
                self._busy = False
                self._changed.notify_all()
            raise

    def _next(self) -> Path | None:
        with self._changed:
            folder, self._waiting = self._waiting, None
            if folder is None:
                self._busy = False
                self._changed.notify_all()
            return folder

    def _copy_one(self, folder: Path) -> None:
        try:
            self.copy(folder)
            self.done += 1
        except (OSError, UserError) as error:
            self.failed += 1
            self.error = str(error)
            logger.warning("%s is not mirrored, training goes on: %s", folder.name, error)
        finally:
            _unpin(folder)


def _pinned(checkpoint: Path, pins: Path) -> Path:
    """The checkpoint under a second name, so that rotation does not take it away while it is copied.

    The files are hard links: no bytes are copied. On a disk without them, the checkpoint itself.
    """
    pin = pins / checkpoint.name
    shutil.rmtree(pin, ignore_errors=True)
    try:
        shutil.copytree(checkpoint, pin, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(pin, ignore_errors=True)
        return checkpoint
    return pin


def _unpin(folder: Path) -> None:
    if folder.parent.name == _PINS:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another waits in it
            folder.parent.rmdir()
