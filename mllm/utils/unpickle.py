"""Reading untrusted pickles: plain containers, text and numbers only."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from mllm.errors import DataError
from mllm.utils.storage import local_file


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names the class {module}.{name}")


def load_plain_pickle(path: str | Path) -> Any:
    """The content of a pickle of lists, dicts, tuples, text and numbers; DataError for anything else in it.

    No class is ever looked up, so nothing in the file can run (REFER's files hold nothing else).
    """
    where = local_file(path)
    if not os.path.isfile(where):
        raise DataError(f"annotation file {str(path)!r} does not exist; check the path or set MLLM_DATA")
    with open(where, "rb") as file:
        try:
            return _PlainUnpickler(file, encoding="utf-8").load()
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError, UnicodeDecodeError, AttributeError) as error:
            raise DataError(f"{path}: not a pickle of plain lists, dicts, text and numbers ({error})") from error
