"""The base of data sets over annotation rows: a new one gives its rows and says how a row becomes an item."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mllm.dataset.questions import QuestionTemplates
from mllm.dataset.rows import JsonlRows, Row
from mllm.errors import DataError, UserError
from mllm.utils.storage import open_image, resolve_path


class RowDataset:
    """A map-style data set over ``rows``; ``build`` turns a row into the item dictionary.

    What ``build`` draws from ``rng`` (a question template, a box, a word order) depends on (seed, epoch, index) alone.
    ``files`` names the annotation files, for the run's fingerprints.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        questions: str | list[str] | None = None,
        placeholders: Sequence[str] = ("<image>",),
        image_root: str | None = None,
        exif: str = "error",
        seed: int = 0,
        files: Sequence[str] = (),
    ) -> None:
        self.rows = rows
        self.files = list(files)
        self.image_root = resolve_path(image_root) if image_root else None
        self.exif = exif
        self.seed = seed
        self.questions = QuestionTemplates(questions, placeholders) if questions is not None else None

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """The item dictionary of one row; a subclass must give it."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.item(index)

    def item(self, index: int, epoch: int = 0) -> dict[str, Any]:
        """The item of ``index`` as ``epoch`` sees it; a fault in the row is a DataError that names its place."""
        row = self.rows[index]
        try:
            item = self.build(row, random.Random(f"{self.seed}-{epoch}-{index}"))
        except UserError as error:
            text = str(error)
            raise DataError(text if text.startswith(row.place) else f"{row.place}: {text}") from error
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            name = type(self).__name__
            raise DataError(f"{row.place}: not a row as {name} reads it ({type(error).__name__}: {error})") from error
        item.setdefault("meta", {}).setdefault("place", row.place)
        return item

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters, images) of the item without opening an image; the row's own text is what varies."""
        row = self.rows[index]
        return sum(len(value) for value in row.values() if isinstance(value, str)), 1

    def image(self, name: str) -> Any:
        """The RGB image ``name`` under the image folder."""
        return open_image(name, root=self.image_root, exif=self.exif)

    def ask(self, rng: random.Random, **values: str) -> str:
        """A question: one template of the set, its placeholders filled (``expr="…"`` fills ``<expr>``)."""
        return self.questions.fill(self.questions.choose(rng), **values)


class JsonlDataset(RowDataset):
    """Base of data sets whose annotations are one JSON object a line."""

    def __init__(self, path: str, **options: Any) -> None:
        path = resolve_path(path)
        super().__init__(JsonlRows(path), files=[path], **options)
