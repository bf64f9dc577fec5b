"""Data sets made of other data sets: what they share, joining, and blanking of pictures."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from PIL import Image

from mllm.errors import ConfigError
from mllm.registry import DATASETS


def item_of(dataset: Any, index: int, epoch: int) -> Any:
    """The item as ``epoch`` sees it; a data set that knows no epochs gives the same item in each."""
    return dataset.item(index, epoch) if hasattr(dataset, "item") else dataset[index]


def hint_of(dataset: Any, index: int) -> tuple[int, int]:
    """(characters, images) of an item without opening an image; (0, 1) where the data set gives no hint."""
    return dataset.length_hint(index) if hasattr(dataset, "length_hint") else (0, 1)


def same_source(dataset: Any, index: int, step: int) -> int:
    """The ``step``-th next index of the source that ``index`` comes from, round and round."""
    if hasattr(dataset, "same_source"):
        return dataset.same_source(index, step)
    return (index + step) % len(dataset)


@dataclass
class Source:
    """A data set that is no mixture, as a mixture uses it: ``samples`` of its ``rows`` stand in one epoch.

    ``chosen`` holds the rows that a subset has taken of it, the only ones that any epoch sees; None for all.
    """

    name: str
    dataset: Any
    rows: int
    samples: float
    chosen: np.ndarray | None = None


def sources_of(dataset: Any, samples: float | None = None, chosen: np.ndarray | None = None) -> Iterator[Source]:
    """The data sets at the bottom of a mixture with their number of samples in an epoch."""
    samples = len(dataset) if samples is None else samples
    if not isinstance(dataset, Mixture):
        yield Source(getattr(dataset, "name", type(dataset).__name__), dataset, len(dataset), samples, chosen)
        return
    rows = dataset.rows_of_parts(chosen)
    for part, count, part_rows in zip(dataset.datasets, dataset.samples, rows, strict=True):
        if part_rows is None or len(part_rows):
            yield from sources_of(part, samples * count / len(dataset), part_rows)


class Mixture:
    """Base of all that take their items from other data sets; a subclass says where an index leads.

    ``samples`` holds how many indices lead into each of ``datasets``.
    """

    def __init__(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        if not datasets:
            raise ConfigError(f"{type(self).__name__}: 'datasets' is empty; give at least one dict(type=…)")
        self.datasets = [DATASETS.build(one) for one in datasets]
        for one, cfg in zip(self.datasets, datasets, strict=True):
            if len(one) == 0:
                raise ConfigError(f"{type(self).__name__}: {cfg.get('type')} has no rows; check its path and filters")
        self.samples = [len(one) for one in self.datasets]

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """(number of the data set, index in it, its epoch) for an index below the length."""
        raise NotImplementedError

    def same_source(self, index: int, step: int) -> int:
        """The ``step``-th next index that leads into the same data set."""
        raise NotImplementedError

    def rows_of_parts(self, indices: np.ndarray | None) -> list[np.ndarray | None]:
        """For each data set the rows that ``indices`` (None: all) lead to in any epoch; None for all of them."""
        return [None] * len(self.datasets)

    def __len__(self) -> int:
        return sum(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.item(index)

    def item(self, index: int, epoch: int = 0) -> Any:
        """The item that ``index`` leads to in ``epoch``."""
        part, inner, inner_epoch = self._locate(index, epoch)
        return item_of(self.datasets[part], inner, inner_epoch)

    def length_hint(self, index: int) -> tuple[int, int]:
        """The hint of the item in the first epoch."""
        part, inner, _ = self._locate(index, 0)
        return hint_of(self.datasets[part], inner)

    @property
    def files(self) -> list[str]:
        """The annotation files of all parts, each once."""
        return list(dict.fromkeys(path for dataset in self.datasets for path in getattr(dataset, "files", [])))

    def _locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{type(self).__name__}: index {index} of {len(self)}")
        return self.locate(index, epoch)


@DATASETS.register_module()
class ConcatDataset(Mixture):
    """The given data sets one after the other; shuffling over all of them is the sampler's."""

    def __init__(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(datasets)
        self.ends = list(accumulate(self.samples))

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """The part that holds ``index``."""
        part = bisect_right(self.ends, index)
        return part, index - self._first(part), epoch

    def rows_of_parts(self, indices: np.ndarray | None) -> list[np.ndarray | None]:
        """The indices, shared out among the parts."""
        if indices is None:
            return super().rows_of_parts(indices)
        starts = [0, *self.ends[:-1]]
        return [
            indices[(indices >= start) & (indices < end)] - start for start, end in zip(starts, self.ends, strict=True)
        ]

    def same_source(self, index: int, step: int) -> int:
        """Within the part."""
        part, inner, _ = self.locate(index, 0)
        return self._first(part) + same_source(self.datasets[part], inner, step)

    def _first(self, part: int) -> int:
        return self.ends[part - 1] if part else 0


@DATASETS.register_module()
class BlankImages(Mixture):
    """The given data set with every picture painted grey: what a model still scores it has from the text alone."""

    def __init__(self, dataset: Mapping[str, Any], colour: Sequence[int] = (127, 127, 127)) -> None:
        super().__init__([dataset])
        self.colour = tuple(colour)

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """The same place."""
        return 0, index, epoch

    def rows_of_parts(self, indices: np.ndarray | None) -> list[np.ndarray | None]:
        """The same rows."""
        return [indices]

    def same_source(self, index: int, step: int) -> int:
        """As the data set says."""
        return same_source(self.datasets[0], index, step)

    def item(self, index: int, epoch: int = 0) -> Any:
        """The item, its images replaced by blank ones of the same size."""
        item = dict(super().item(index, epoch))
        images = item.pop("images", None) or [item.pop("image", None)]
        item["images"] = [Image.new("RGB", image.size, self.colour) for image in images if image is not None]
        return item
