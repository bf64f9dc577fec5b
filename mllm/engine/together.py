"""What all ranks have to do, know or raise together; a rank that went its own way would leave the others waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate.utils import DistributedType, broadcast_object_list, gather_object

from mllm.errors import UserError
from mllm.utils.logging import get_logger

T = TypeVar("T")
logger = get_logger(__name__)


class SharedError(UserError):
    """An error that every rank raises at the same place: the run may go on with something else."""


def on_main(accelerator: Any, function: Callable[[], T]) -> T:
    """What ``function`` gives on the main process, for every rank; SharedError on every rank if it fails there.

    Any exception counts, the evaluator of a plug-in may raise what it likes: one that is no UserError is logged with
    its traceback.
    """
    outcome: list[Any] = [None, None]
    cause: Exception | None = None
    if accelerator.is_main_process:
        try:
            outcome[0] = function()
        except Exception as error:
            cause = error
            outcome[1] = str(error)
            if not isinstance(error, UserError):
                outcome[1] = f"{type(error).__name__}: {error}"
                logger.exception("this is a bug, of mllm or of a plug-in:")
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise SharedError(outcome[1]) from cause
    return outcome[0]


def share_error(accelerator: Any, error: UserError | None) -> None:
    """Wait for all ranks; SharedError on every one of them if any has an ``error``.

    Where the ranks hold the weights in pieces the others now wait for this rank's piece and cannot come here: the error
    is raised as it is, to end the process and with it the run.
    """
    if error is not None and accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise error
    found = [one for one in gather_object([None if error is None else str(error)]) if one is not None]
    if found:
        raise SharedError(found[0]) from error
