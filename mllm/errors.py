"""What a user can put right: one clear sentence each, printed without a traceback unless ``--debug`` is given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base of the errors whose message is written for the person who runs the program."""


class ConfigError(UserError):
    """A config, a flag or a registered name is wrong."""


class DataError(UserError):
    """A row, an image or an annotation file is wrong; the message names the place.

    ``kind`` is the name under which faults of this kind are counted together (``mllm.dataset.problems.KINDS``).
    """

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete, or not of the kind that was asked for."""


class Preempted(UserError):
    """Training was asked to stop, and has saved what it needs to go on; the program ends with exit code 75."""


def choices(name: str, known: Iterable[str], limit: int = 12) -> str:
    """The end of a sentence about a wrong name: the near one if there is one, and the list of what exists."""
    names = sorted(set(known))
    lowered = {other.lower(): other for other in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    listed = ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")
    return (f"did you mean {lowered[near[0]]!r}? " if near else "") + f"known: {listed or 'none'}"
