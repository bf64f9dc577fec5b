"""Images that stand as base64 text in one file: a JSON object ``{id: text}`` or a parquet file, read one by one."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any, Protocol

import numpy as np

from mllm.dataset.object_rows import ObjectRows
from mllm.errors import DataError
from mllm.utils.imports import require
from mllm.utils.storage import decode_image, local_file

COLUMN = "base64"
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


class TextStore(Protocol):
    """Where the base64 text of an image id is found; None where there is none."""

    def text(self, identity: str) -> Any:
        """The text of ``identity``."""


class Base64Images:
    """The images of one file by their ids; both alphabets of base64 are read, as Otter's files have either."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.store: TextStore = ParquetTexts(path) if path.endswith(".parquet") else JsonTexts(path)

    def image(self, identity: str, place: str, exif: str = "error") -> Any:
        """The RGB image; DataError that names ``place``, the file and the id."""
        text = self.store.text(identity)
        where = f"{place}: image {identity!r} of {self.path!r}"
        if text is None:
            raise DataError(f"{where} is not there")
        if not isinstance(text, str):
            raise DataError(f"{where}: expected base64 text, got {text!r:.40}")
        try:
            content = base64.b64decode(text.translate(_STANDARD_ALPHABET), validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"{where}: not base64 ({error})") from error
        return decode_image(content, where, exif=exif)


class JsonTexts:
    """Texts of a JSON object; one is read at a time."""

    def __init__(self, path: str) -> None:
        self.rows = ObjectRows(path)

    def text(self, identity: str) -> Any:
        """The text of ``identity``."""
        row = self.rows.find(identity)
        return None if row is None else row.get("value", row)


class ParquetTexts:
    """Texts of a parquet file with the column ``base64`` and one column of ids (pandas' index).

    Parquet gives whole row groups: the last one read is kept, and a file of one group is read whole.
    """

    def __init__(self, path: str) -> None:
        self.path = local_file(path)
        self._parquet = require("pyarrow.parquet", "parquet")
        if not os.path.isfile(self.path):
            raise DataError(f"image file {path!r} does not exist; check the path or set MLLM_DATA")
        self._opened: tuple[int, Any] | None = None
        self._group: tuple[int, Any] = (-1, None)
        file = self._file()
        ids = [name for name in file.schema_arrow.names if name != COLUMN]
        if COLUMN not in file.schema_arrow.names or not ids:
            names = ", ".join(file.schema_arrow.names)
            raise DataError(f"{path}: expected the columns {COLUMN!r} and an id, got {names}")
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._ends = np.cumsum(sizes)
        self._rows = {name: row for row, name in enumerate(file.read(columns=ids[:1]).column(0).to_pylist())}

    def text(self, identity: str) -> Any:
        """The text of ``identity``."""
        row = self._rows.get(identity)
        if row is None:
            return None
        group = int(np.searchsorted(self._ends, row, side="right"))
        if self._group[0] != group:
            self._group = group, self._file().read_row_group(group, columns=[COLUMN]).column(0)
        return self._group[1][row - (int(self._ends[group - 1]) if group else 0)].as_py()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_group": (-1, None), "_parquet": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _parquet=require("pyarrow.parquet", "parquet"))

    def _file(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._parquet.ParquetFile(self.path)
        return self._opened[1]
