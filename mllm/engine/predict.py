"""Generation over a data set: every index once and in order, whatever the number of processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from mllm.engine.collators import GenerationCollator
from mllm.engine.records import in_order, read_records
from mllm.structures import Record
from mllm.utils.files import atomic_write


@dataclass
class Generator:
    """All that generation needs besides the data: model and family, accelerator, batch size, workers, options."""

    model: Any
    family: Any
    processor: Any
    accelerator: Any
    batch_size: int
    workers: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def generate(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """The answers to one left-padded batch."""
        device = self.accelerator.device
        batch = {name: value.to(device) for name, value in batch.items()}
        tokenizer = self.processor.tokenizer
        pad = self.processor.pad_id
        options = {"do_sample": False, "eos_token_id": self.processor.stop_ids(), "pad_token_id": pad, **self.options}
        if tokenizer.bos_token_id is not None:
            options.setdefault("bos_token_id", tokenizer.bos_token_id)
        with torch.no_grad():
            ids = self.family.generate(self.model, batch, **options)
        return self.processor.decode(ids)


def predict(
    generator: Generator, dataset: Any, path: Path, label: str, on_notes: Callable | None = None
) -> list[Record]:
    """Generate for every sample and write ``path``: one record a line, by index; returns the records on every rank.

    Each rank appends to a part file as answers come; rank 0 merges them when all are done. Every rank generates equally
    often (ZeRO-3 and FSDP gather weights in each forward pass): a short one repeats an index, and repeats are dropped.
    """
    accelerator = generator.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    part = path.with_name(f"{path.stem}.rank{rank}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    batches = shard(len(dataset), rank, world, generator.batch_size)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=GenerationCollator(generator.processor),
        num_workers=generator.workers,
    )
    was_training = generator.model.training
    generator.model.eval()
    seen: set[int] = set()
    with part.open("w", encoding="utf-8") as file:
        for batch, records, notes in tqdm(loader, desc=label, disable=rank != 0, leave=False):
            for record, answer in zip(records, generator.generate(batch), strict=True):
                record.pred = "" if record.failure else answer
                if record.index not in seen:
                    seen.add(record.index)
                    file.write(json.dumps(record.to_dict(), ensure_ascii=False) + "\n")
            file.flush()
            if on_notes:
                on_notes(notes)
    generator.model.train(was_training)
    accelerator.wait_for_everyone()
    if rank == 0:
        merge_parts(path, [path.with_name(f"{path.stem}.rank{one}.part") for one in range(world)], len(dataset))
    accelerator.wait_for_everyone()
    return read_records(path)


def shard(length: int, rank: int, world: int, batch_size: int) -> list[list[int]]:
    """The batches of one rank: indices ``rank, rank + world, …``; every rank gets the same number of full batches."""
    each = -(-length // world)
    mine = [min(rank + step * world, length - 1) for step in range(each)]
    return [mine[start : start + batch_size] for start in range(0, each, batch_size)]


def merge_parts(path: Path, parts: Sequence[Path], expected: int) -> None:
    """Join the ranks' part files into ``path`` by index; DataError unless every index stands there exactly once."""
    once: dict[int, Record] = {}
    for part in parts:
        for record in read_records(part):
            once.setdefault(record.index, record)
    records = in_order(list(once.values()), expected, str(path), advice="; run the prediction again")
    atomic_write(path, "".join(json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records))
    for part in parts:
        part.unlink()
