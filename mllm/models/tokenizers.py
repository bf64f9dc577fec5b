"""Loading a tokenizer from a folder, without a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mllm.errors import CheckpointError


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a folder; CheckpointError that names the folder if there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"tokenizer: {str(folder)!r} cannot be read: {str(error).splitlines()[0]}") from error
