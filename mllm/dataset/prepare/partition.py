"""Training, test and validation sets: by ratio in every stratum, seeded, and no image in two of them."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from mllm.errors import ConfigError

SPLITS = ("train", "test", "val")


@dataclass(frozen=True)
class Ratios:
    """Shares of the training and test set; what is left of 1 is validation, and no such set where nothing is left."""

    train: float = 0.7
    test: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.train <= 1 or not 0 <= self.test < 1 or self.train + self.test > 1 + 1e-9:
            raise ConfigError(
                f"train_ratio={self.train:g}, test_ratio={self.test:g}: expected a train_ratio above 0, a test_ratio "
                "from 0 and a sum of at most 1, as 0.7 and 0.2"
            )

    @property
    def by_split(self) -> dict[str, float]:
        """Split → share, only those above 0."""
        shares = zip(SPLITS, (self.train, self.test, 1 - self.train - self.test), strict=True)
        return {name: share for name, share in shares if share > 1e-9}


def partition(strata: Sequence[str], images: Sequence[Sequence[Hashable]], ratios: Ratios, seed: int) -> list[str]:
    """The split of every record, a function of the arguments alone.

    Records that share an image, directly or through others, stay together; such a group counts in the stratum of its
    first record. Groups are taken in an order drawn from ``seed``, large ones first, each into the split that lacks
    most records, so that groups of one record meet the shares exactly.

    Args:
        strata: of each record.
        images: what tells the images of each record (a name, a hash of the content).
        ratios: the shares.
        seed: another number gives other sets.
    """
    groups: dict[str, list[list[int]]] = {}
    for group in _groups(images):
        groups.setdefault(strata[group[0]], []).append(group)
    chosen = [""] * len(strata)
    for stratum, members in groups.items():
        random.Random(f"{seed}-{stratum}").shuffle(members)
        members.sort(key=len, reverse=True)
        lacking = counts_by_split(sum(map(len, members)), ratios)
        for group in members:
            split = max(lacking, key=lacking.__getitem__)
            lacking[split] -= len(group)
            for record in group:
                chosen[record] = split
    return chosen


def counts_by_split(total: int, ratios: Ratios) -> dict[str, int]:
    """``total`` divided by the shares: rounded down, the rest to the largest fractions, of equal ones train first."""
    exact = {name: round(share * total, 6) for name, share in ratios.by_split.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: round(counts[name] - exact[name], 6))[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _groups(images: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Records joined through their images, in the order of their first records."""
    parent = list(range(len(images)))
    owner: dict[Hashable, int] = {}

    def root(record: int) -> int:
        while parent[record] != record:
            parent[record] = parent[parent[record]]
            record = parent[record]
        return record

    for record, own in enumerate(images):
        for image in own:
            one, other = root(record), root(owner.setdefault(image, record))
            parent[max(one, other)] = min(one, other)
    found: dict[int, list[int]] = {}
    for record in range(len(images)):
        found.setdefault(root(record), []).append(record)
    return list(found.values())
