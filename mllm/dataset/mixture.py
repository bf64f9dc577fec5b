"""Several data sets as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from PIL import Image

from mllm.errors import ConfigError
from mllm.registry import DATASETS


def item_of(dataset: Any, index: int, epoch: int) -> Any:
    """The item as ``epoch`` sees it; a data set that knows no epochs gives the same item in each."""
    return dataset.item(index, epoch) if hasattr(dataset, "item") else dataset[index]


def hint_of(dataset: Any, index: int) -> tuple[int, int]:
    """(characters, images) of an item without opening an image; (0, 1) where the data set gives no hint."""
    return dataset.length_hint(index) if hasattr(dataset, "length_hint") else (0, 1)


@DATASETS.register_module()
class ConcatDataset:
    """The given data sets one after the other; shuffling over all of them is the sampler's."""

    def __init__(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        if not datasets:
            raise ConfigError("ConcatDataset: 'datasets' is empty; give at least one dict(type=…)")
        self.datasets = [DATASETS.build(one) for one in datasets]
        self.ends = list(accumulate(len(one) for one in self.datasets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Any:
        return self.item(index)

    def item(self, index: int, epoch: int = 0) -> Any:
        """The item of the part that holds ``index``."""
        dataset, inner = self._locate(index)
        return item_of(dataset, inner, epoch)

    def length_hint(self, index: int) -> tuple[int, int]:
        """The part's hint."""
        dataset, inner = self._locate(index)
        return hint_of(dataset, inner)

    @property
    def files(self) -> list[str]:
        """The annotation files of all parts, each once."""
        return list(dict.fromkeys(path for dataset in self.datasets for path in getattr(dataset, "files", [])))

    def source_range(self, index: int) -> tuple[int, int]:
        """First index and end of the part that holds ``index``: a failed sample is replaced within it."""
        part = bisect_right(self.ends, index)
        return (self.ends[part - 1] if part else 0), self.ends[part]

    def _locate(self, index: int) -> tuple[Any, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self.ends, index)
        return self.datasets[part], index - (self.ends[part - 1] if part else 0)


@DATASETS.register_module()
class BlankImages:
    """The given data set with every picture painted grey: what a model still scores it has from the text alone."""

    def __init__(self, dataset: Mapping[str, Any], colour: Sequence[int] = (127, 127, 127)) -> None:
        self.dataset = DATASETS.build(dataset)
        self.colour = tuple(colour)
        self.files = getattr(self.dataset, "files", [])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.item(index)

    def item(self, index: int, epoch: int = 0) -> Any:
        """The item, its images replaced by blank ones of the same size."""
        item = dict(item_of(self.dataset, index, epoch))
        images = item.pop("images", None) or [item.pop("image")]
        item["images"] = [Image.new("RGB", image.size, self.colour) for image in images]
        return item

    def length_hint(self, index: int) -> tuple[int, int]:
        """The wrapped data set's hint."""
        return hint_of(self.dataset, index)
