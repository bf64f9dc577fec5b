"""Chat messages with images between the text, as XTuner's fine-tuning files and OpenAI's interface write them.

Layout: github InternLM/xtuner (tests/resource): JSON lines ``{"messages": [{"role", "content"}]}``; ``content`` is text
or a list of ``{"type": "text", "text"}`` and ``{"type": "image_url", "image_url": {"url"}}``.
"""

from __future__ import annotations

import random
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.rows import Row, open_rows
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.structures import IMAGE_PLACEHOLDER
from mllm.utils.storage import resolve_path

ROLES = {"user": "human", "assistant": "gpt"}


@DATASETS.register_module()
class XTunerMessages(RowDataset):
    """Messages of ``user`` and ``assistant`` with any number of images.

    ``image_token`` in a text stands for an image of the same message; where no text has it, an image stands in front of
    what follows it.
    """

    def __init__(
        self,
        path: str,
        image_root: str | None = None,
        image_token: str = "<IMG_CONTEXT>",
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        super().__init__(open_rows(path), image_root=image_root, exif=exif, seed=seed, files=[path])
        self.image_token = image_token

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One conversation with its images."""
        turns, names = self._turns(row)
        meta = {"source": type(self).__name__, "question_id": row.get("id"), "image_id": names[0] if names else None}
        return {
            "images": [self.image(name) for name in names],
            "conversations": turns,
            "meta": {key: value for key, value in meta.items() if value is not None},
        }

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of all messages, images)."""
        turns, names = self._turns(self.rows[index])
        return sum(len(turn["value"]) for turn in turns), len(names)

    def _turns(self, row: Row) -> tuple[list[dict[str, str]], list[str]]:
        turns, names = [], []
        for number, message in enumerate(row["messages"]):
            place = f"{row.place}: messages[{number}]"
            role, content = message.get("role"), message.get("content")
            if role not in ROLES:
                raise DataError(f"{place}: role {role!r}, expected {' or '.join(ROLES)}")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            text, own = self._joined(parts, place)
            turns.append({"from": ROLES[role], "value": text})
            names += own
        return turns, names

    def _joined(self, parts: Any, place: str) -> tuple[str, list[str]]:
        if not isinstance(parts, list):
            raise DataError(f"{place}: 'content' must be text or a list of parts, got {parts!r:.60}")
        names = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]
        others = [part.get("type") for part in parts if part.get("type") not in ("image_url", "text")]
        if others:
            raise DataError(f"{place}: a part of type {others[0]!r}, expected 'text' or 'image_url'")
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        marks = text.count(self.image_token)
        if marks == len(names):
            return text.replace(self.image_token, IMAGE_PLACEHOLDER), names
        if marks:
            raise DataError(f"{place}: {marks} {self.image_token} in the text but {len(names)} images")
        pieces = [f"{IMAGE_PLACEHOLDER}\n" if part["type"] == "image_url" else part["text"] for part in parts]
        return "".join(pieces), names
