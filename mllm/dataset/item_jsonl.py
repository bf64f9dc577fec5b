"""Items as a file: one item dictionary a line, ``image`` a path below ``image_root``."""

from __future__ import annotations

import random
from typing import Any

from mllm.dataset.base import JsonlDataset
from mllm.dataset.rows import Row
from mllm.registry import DATASETS


@DATASETS.register_module()
class ItemJsonl(JsonlDataset):
    """Ready-made items: ``{"image": "path" | ["path", …] | null, "target": …, "conversations": […]}``."""

    def __init__(self, path: str, image_root: str | None = None, exif: str = "error") -> None:
        super().__init__(path, image_root=image_root, exif=exif)

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """The row with its images opened."""
        item = {key: value for key, value in row.items() if key not in ("image", "images")}
        names = row.get("images", row.get("image"))
        if names is not None:
            item["images"] = [self.image(name) for name in ([names] if isinstance(names, str) else names)]
        return item
