"""A part of a data set, one several times, several mixed by probability or shuffled into each other.

Which row stands where is a function of (seed, epoch, index) alone, so any number of workers and processes sees the same
and a resumed run goes on alike.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mllm.dataset.mixture import ConcatDataset, Mixture
from mllm.errors import ConfigError, choices
from mllm.registry import DATASETS


class _Resampled(Mixture):
    """One data set of which ``samples`` items are taken in an epoch, its rows in an order that changes with the epoch.

    Every row comes floor(samples / rows) times and some once more; over the epochs all rows take turns, and each
    return of a row counts as another epoch of it, so that it is asked otherwise.
    """

    def __init__(self, dataset: Mapping[str, Any], samples: int, seed: int) -> None:
        super().__init__([dataset])
        self.rows = self.samples[0]
        self.samples = [samples]
        self.seed = seed

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """Epochs lie end to end on rounds through all rows; each round has its own order."""
        turn, place = divmod(epoch * self.samples[0] + index, self.rows)
        return 0, shuffled_place(place, self.rows, f"{self.seed}-{turn}"), turn

    def same_source(self, index: int, step: int) -> int:
        """The next, round and round."""
        return (index + step) % len(self)


def shuffled_place(place: int, length: int, key: str) -> int:
    """Where ``place`` goes under a permutation of ``range(length)`` that ``key`` alone decides, without a table.

    Four rounds of a Feistel network on the least square that holds ``length``, walked until the value is in range
    (J. Black, P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002).
    """
    side = max(math.isqrt(length - 1) + 1, 1)
    salt = random.Random(key).getrandbits(64)
    while True:
        left, right = divmod(place, side)
        for number in range(4):
            left, right = right, (left + _mixed(right, salt + number)) % side
        place = left * side + right
        if place < length:
            return place


def _mixed(value: int, salt: int) -> int:
    """64 well-stirred bits (the finisher of splitmix64, S. Vigna)."""
    value = (value + salt * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


@DATASETS.register_module()
class RepeatDataset(_Resampled):
    """The data set ``times`` over in one epoch; ``times`` need not be whole.

    1.5 gives every row once and half of the rows twice, the other half in the next epoch.
    """

    def __init__(self, dataset: Mapping[str, Any], times: float, seed: int = 0) -> None:
        if times <= 0:
            raise ConfigError(f"RepeatDataset: times={times!r}; expected a number above 0")
        super().__init__(dataset, 1, seed)
        self.samples = [max(round(times * self.rows), 1)]


@DATASETS.register_module()
class SubsetDataset(Mixture):
    """A fixed random choice of rows, the same in every epoch, in their old order: ``portion`` in (0, 1] or ``count``.

    ``shuffle=False`` takes the first rows instead.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any],
        portion: float | None = None,
        count: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__([dataset])
        rows = self.samples[0]
        if (portion is None) == (count is None):
            raise ConfigError(f"SubsetDataset: give portion or count, got portion={portion!r}, count={count!r}")
        if portion is not None and not 0 < portion <= 1:
            raise ConfigError(f"SubsetDataset: portion={portion!r}; expected above 0, at most 1 (RepeatDataset: above)")
        wanted = max(round(portion * rows), 1) if portion is not None else int(count or 0)
        if not 1 <= wanted <= rows:
            raise ConfigError(f"SubsetDataset: count={count!r}; expected 1 to {rows}, the rows that there are")
        chosen = np.random.default_rng(seed).permutation(rows)[:wanted] if shuffle else np.arange(wanted)
        self.rows = np.sort(chosen)
        self.samples = [wanted]

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """The chosen row."""
        return 0, int(self.rows[index]), epoch

    def rows_of_parts(self, indices: np.ndarray | None) -> list[np.ndarray | None]:
        """The chosen rows."""
        return [self.rows if indices is None else self.rows[indices]]

    def same_source(self, index: int, step: int) -> int:
        """The next chosen row."""
        return (index + step) % len(self)


@DATASETS.register_module()
class InterleaveDataset(Mixture):
    """Data sets mixed by ``probabilities`` (equal if None): each index draws its data set, whose rows come in turn.

    ``stopping="first_exhausted"`` ends where the first data set has no row left, ``"all_exhausted"`` where every one
    has been through once; those that end sooner begin again, as another epoch of theirs. The next epoch goes on with
    each data set where this one stopped.
    """

    def __init__(
        self,
        datasets: Sequence[Mapping[str, Any]],
        probabilities: Sequence[float] | None = None,
        stopping: str = "first_exhausted",
        seed: int = 0,
    ) -> None:
        super().__init__(datasets)
        shares = _shares(probabilities, len(self.datasets))
        if stopping not in STOPPING:
            raise ConfigError(f"InterleaveDataset: stopping={stopping!r}; {choices(str(stopping), STOPPING)}")
        self.seed = seed
        self.rows = self.samples
        self.drawn = _draw(self.rows, shares, stopping, np.random.default_rng(seed))
        # Number of the index among those of its data set.
        self.number = np.empty(len(self.drawn), dtype=np.int64)
        for part in range(len(self.datasets)):
            here = self.drawn == part
            self.number[here] = np.arange(int(here.sum()))
        self.samples = [int((self.drawn == part).sum()) for part in range(len(self.datasets))]

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """The data set drawn for the index and its next row."""
        part = int(self.drawn[index])
        turn, place = divmod(epoch * self.samples[part] + int(self.number[index]), self.rows[part])
        return part, shuffled_place(place, self.rows[part], f"{self.seed}-{part}-{turn}"), turn

    def same_source(self, index: int, step: int) -> int:
        """The next index that drew the same data set."""
        same = np.flatnonzero(self.drawn == self.drawn[index])
        return int(same[(int(self.number[index]) + step) % len(same)])


STOPPING = ("first_exhausted", "all_exhausted")


def _shares(probabilities: Sequence[float] | None, parts: int) -> np.ndarray:
    if probabilities is None:
        return np.full(parts, 1 / parts)
    if len(probabilities) != parts or min(probabilities) <= 0:
        fault = f"probabilities={list(probabilities)!r} for {parts} data sets"
        raise ConfigError(f"InterleaveDataset: {fault}; expected one number above 0 for each")
    shares = np.asarray(probabilities, dtype=float)
    return shares / shares.sum()


def _draw(rows: Sequence[int], shares: np.ndarray, stopping: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers of data sets up to where ``stopping`` says."""
    drawn = np.empty(0, dtype=np.uint16)
    block = max(int(max(count / share for count, share in zip(rows, shares, strict=True))), 64)
    while True:
        drawn = np.concatenate([drawn, rng.choice(len(rows), size=block, p=shares).astype(np.uint16)])
        ends = []
        for part, count in enumerate(rows):
            at = np.flatnonzero(drawn == part)
            ends.append(int(at[count - 1]) + 1 if len(at) >= count else math.inf)
        end = min(ends) if stopping == "first_exhausted" else max(ends)
        if end != math.inf:
            return drawn[: int(end)]


@DATASETS.register_module()
class ConcatDatasetWithShuffle(ConcatDataset):
    """The data sets joined, each ``portions`` times its rows (one number for all, or one each; above 1 repeats), and
    shuffled anew in every epoch – for runs whose sampler keeps the order.
    """

    def __init__(
        self, datasets: Sequence[Mapping[str, Any]], portions: float | Sequence[float] = 1.0, seed: int = 0
    ) -> None:
        each = [portions] * len(datasets) if isinstance(portions, (int, float)) else list(portions)
        if len(each) != len(datasets):
            raise ConfigError(f"ConcatDatasetWithShuffle: {len(each)} portions for {len(datasets)} data sets")
        super().__init__(
            [
                {"type": "RepeatDataset", "dataset": one, "times": times, "seed": seed}
                for one, times in zip(datasets, each, strict=True)
            ]
        )
        self.seed = seed

    def rows_of_parts(self, indices: np.ndarray | None) -> list[np.ndarray | None]:
        """All: any index leads to any row in some epoch."""
        return [None] * len(self.datasets)

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """Where the epoch's shuffle leads."""
        return super().locate(shuffled_place(index, len(self), f"{self.seed}-{epoch}"), epoch)

    def same_source(self, index: int, step: int) -> int:
        """The next index, in the first epoch's order, that leads into the same data set."""
        part, found = self.locate(index, 0)[0], index
        while step:
            found = (found + 1) % len(self)
            step -= self.locate(found, 0)[0] == part
        return found
