"""Samplers that yield ``(epoch, index)``: workers that live through all epochs never hear of ``set_epoch``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

Key = tuple[int, int]


class EpochSampler(Sampler[Key]):
    """Every index once an epoch; the order depends on (seed, epoch) alone."""

    def __init__(self, length: int, *, seed: int, shuffle: bool = True) -> None:
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        epoch = self.epoch
        return iter([(epoch, index) for index in self.order(epoch)])

    def order(self, epoch: int) -> list[int]:
        """The indices in the order of ``epoch``."""
        return self._permutation(epoch) if self.shuffle else list(range(self.length))

    def _permutation(self, epoch: int) -> list[int]:
        # Mixed, not added: seed 1 epoch 0 must not repeat seed 0 epoch 1.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(self.length, generator=generator).tolist()


class LengthGroupedSampler(EpochSampler):
    """Like lengths together: shuffle, cut into stretches of 50 batches, sort each by length, longest first.

    ``modality`` keeps samples with and without images in separate batches (LLaVA's group_by_modality_length,
    github haotian-liu/LLaVA llava/train/llava_trainer.py). Batches are then shuffled, the longest put first, so that a
    run which does not fit into memory fails at its first step.
    """

    def __init__(self, hints: Sequence[tuple[int, int]], batch_size: int, *, seed: int, modality: bool = False) -> None:
        super().__init__(len(hints), seed=seed)
        self.hints = hints
        self.batch_size = batch_size
        self.modality = modality

    def order(self, epoch: int) -> list[int]:
        """The indices in the order of ``epoch``."""
        permutation = self._permutation(epoch)
        groups = [permutation]
        if self.modality:
            with_image = [i for i in permutation if self.hints[i][1]]
            groups = [with_image, [i for i in permutation if not self.hints[i][1]]]
        batches = [batch for group in groups for batch in self._batches(group)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [index for batch in batches if len(batch) < self.batch_size for index in batch]
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        shuffled = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
        longest = max(range(len(shuffled)), key=lambda i: self.hints[shuffled[i][0]][0], default=0)
        if shuffled:
            shuffled[0], shuffled[longest] = shuffled[longest], shuffled[0]
        return [index for batch in shuffled for index in batch] + rest

    def _batches(self, indices: Sequence[int]) -> list[list[int]]:
        stretch = 50 * self.batch_size
        ordered: list[int] = []
        for start in range(0, len(indices), stretch):
            ordered += sorted(indices[start : start + stretch], key=lambda i: -self.hints[i][0])
        return [list(ordered[start : start + self.batch_size]) for start in range(0, len(ordered), self.batch_size)]


def build_sampler(dataset: Any, strategy: str, *, batch_size: int, seed: int) -> EpochSampler:
    """The sampler that ``train_sampling_strategy`` names; ``batch_size`` counts all processes and accumulation."""
    if strategy in ("group_by_length", "group_by_modality_length"):
        hints = [dataset.length_hint(index) for index in range(len(dataset))]
        return LengthGroupedSampler(hints, batch_size, seed=seed, modality=strategy == "group_by_modality_length")
    return EpochSampler(len(dataset), seed=seed, shuffle=strategy != "sequential")
