"""Kinds of problems that a check of data finds, and the count of them by kind with their first places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mllm.errors import UserError

ERROR, WARNING = "error", "warning"
UNREADABLE, CRASH = "unreadable row", "crash"
FIRST = 5


@dataclass(frozen=True)
class Kind:
    """Severity and meaning of a kind of problem.

    ``stops``: no ``on_error`` helps. ``of_places``: its share is told among the rows that have boxes or points.
    """

    severity: str
    meaning: str
    stops: bool = False
    of_places: bool = False


KINDS = {
    UNREADABLE: Kind(ERROR, "broken JSON, a missing or wrong field"),
    CRASH: Kind(ERROR, "the data set raises what no run survives", stops=True),
    "missing file": Kind(ERROR, "an image, or another file that the row names, is not there"),
    "path outside its folder": Kind(ERROR, "an image lies outside image_root"),
    "broken image": Kind(ERROR, "no image, or a truncated one"),
    "huge image": Kind(ERROR, "more pixels than any run decodes"),
    "turned image": Kind(ERROR, "EXIF data turn it and the data set's exif=… does not say what holds"),
    "turns": Kind(ERROR, "human and gpt do not alternate from human"),
    "placeholders": Kind(ERROR, "<image>, <boxes> or <points> do not fit images, sequences or target"),
    "target": Kind(ERROR, "boxes or points that belong to no image"),
    "reversed box": Kind(ERROR, "right or bottom before left or top", of_places=True),
    "normalised box": Kind(ERROR, "fractions where pixels belong", of_places=True),
    "outside the image": Kind(ERROR, "a box or point outside its image", of_places=True),
    "cannot be encoded": Kind(ERROR, "the text does not become ids, or max_length cuts an image"),
    "supervision": Kind(ERROR, "the trained tokens do not read as the answers", stops=True),
    "nothing trained": Kind(ERROR, "empty answers, or cut off by max_length"),
    "cut by max_length": Kind(WARNING, "the end of the conversation is not trained"),
    "empty box": Kind(WARNING, "a box without area", of_places=True),
    "looks like xywh": Kind(WARNING, "boxes make sense as x, y, width, height", of_places=True),
    "normalised point": Kind(WARNING, "all coordinates at most 1", of_places=True),
    "wrong extension": Kind(WARNING, "the file's name tells another format"),
    "duplicate": Kind(WARNING, "same image and conversation as an earlier row of the source"),
    "image also in train": Kind(WARNING, "the same content as an image of data_args.train"),
}


@dataclass(frozen=True)
class Problem:
    """One finding: kind, ``file:row:field``, and a sentence."""

    kind: str
    place: str
    message: str

    @property
    def severity(self) -> str:
        """``"error"``: a run would fail or lose the row; ``"warning"``: suspicious."""
        return KINDS[self.kind].severity

    @property
    def stops(self) -> bool:
        """Whether no ``on_error`` helps."""
        return KINDS[self.kind].stops


@dataclass
class Tally:
    """How many rows have a problem of a kind, and the first of them."""

    rows: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[Problem]] = field(default_factory=dict)

    def add_row(self, problems: Iterable[Problem]) -> None:
        """Count the problems of one row, each kind once."""
        for kind, problem in {one.kind: one for one in reversed(list(problems))}.items():
            self.add(kind, 1, [problem])

    def add(self, kind: str, rows: int, first: Iterable[Problem]) -> None:
        """Count more rows of a kind."""
        self.rows[kind] += rows
        self.first[kind] = [*self.first.get(kind, ()), *first][:FIRST]

    def merge(self, later: Tally) -> None:
        """Add what was counted in later rows."""
        for kind, rows in later.rows.items():
            self.add(kind, rows, later.first[kind])

    @property
    def kinds(self) -> list[str]:
        """The kinds found, in the order of ``KINDS``: errors first."""
        return [kind for kind in KINDS if self.rows[kind]]


def kind_of(error: BaseException, default: str = UNREADABLE) -> str:
    """The kind that the error, or the first one it stems from, was raised with."""
    cause: BaseException | None = error
    while isinstance(cause, UserError):
        if getattr(cause, "kind", "") in KINDS:
            return cause.kind  # type: ignore[attr-defined]
        cause = cause.__cause__
    return default
