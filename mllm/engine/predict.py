"""Generation over a data set: every index once and in order, whatever the number of processes and of interruptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from mllm.dataset.mixture import hint_of
from mllm.engine.collators import GenerationCollator
from mllm.engine.parts import Parts
from mllm.engine.records import read_records
from mllm.engine.second_pass import rewrite
from mllm.engine.stopping import StopAtMarks
from mllm.engine.together import on_main, share_error
from mllm.errors import DataError, UserError
from mllm.structures import Record
from mllm.utils.logging import get_logger

Note = tuple[str, str]
logger = get_logger(__name__)


@dataclass
class Generator:
    """All that generation needs besides the data: model and family, accelerator, batch size, workers, options.

    ``options`` are those of transformers' ``generate`` (``num_beams``, ``do_sample``, ``temperature``, …). Sampling
    draws from ``seed`` and the batch alone: the text changes with the batch size, but neither with the number of
    processes nor by a resumption.
    """

    model: Any
    family: Any
    processor: Any
    accelerator: Any
    batch_size: int
    workers: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def generate(self, batch: dict[str, torch.Tensor], draw: int = 0) -> list[str]:
        """The answers to one left-padded batch; ``draw`` tells it from others where the options ask for sampling."""
        with torch.no_grad(), self._drawing(draw):
            answers = self._once(batch)
            prompt = self.options.get("second_pass")
            return rewrite(answers, prompt, self.processor, self.model, self._once) if prompt else answers

    def _once(self, batch: dict[str, torch.Tensor]) -> list[str]:
        device = self.accelerator.device
        batch = {name: value.to(device) for name, value in batch.items()}
        with self.accelerator.autocast():
            ids = self.family.generate(self.model, batch, **self._arguments())
        return self.processor.decode(ids)

    def _arguments(self) -> dict[str, Any]:
        tokenizer, stop_ids = self.processor.tokenizer, self.processor.stop_ids()
        options = {"do_sample": False, "eos_token_id": stop_ids, "pad_token_id": self.processor.pad_id, **self.options}
        options.pop("second_pass", None)
        if tokenizer.bos_token_id is not None:
            options.setdefault("bos_token_id", tokenizer.bos_token_id)
        marks = [mark for mark in self.processor.template.stop if mark not in tokenizer.all_special_tokens]
        if marks:
            options["stopping_criteria"] = [StopAtMarks(tokenizer, marks)]
        if "stop_strings" in options:
            options["tokenizer"] = tokenizer
        return options

    @contextmanager
    def _drawing(self, draw: int) -> Iterator[None]:
        if not self.options.get("do_sample"):
            yield
            return
        device = self.accelerator.device
        # Forked: an evaluation must not change what the training around it draws.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed((self.seed * 1_000_003 + draw) % 2**63)
            yield


def predict(
    generator: Generator,
    dataset: Any,
    path: Path,
    label: str,
    made_of: Mapping[str, str],
    on_notes: Callable | None = None,
) -> list[Record]:
    """Generate for every sample and write ``path``: one record a line, by index; returns the records on every rank.

    Each rank appends to a part file as answers come; the main process joins them when all are done. From parts that a
    killed run has left it goes on if ``made_of`` is the same. Errors are raised on all ranks alike (SharedError).
    """
    accelerator, parts = generator.accelerator, Parts(path, made_of)
    path.parent.mkdir(parents=True, exist_ok=True)

    def start() -> list[list[int]]:
        there = parts.start()
        if there:
            logger.info("%s: resuming: %d of %d are there", label, len(there), len(dataset))
        return left(longest_first(dataset, generator.batch_size), there)

    batches, own = share(on_main(accelerator, start), accelerator.process_index, accelerator.num_processes)
    error: UserError | None = None
    try:
        with parts.writer(accelerator.process_index) as writer, _evaluating(generator.model):
            for records, notes in _answers(generator, dataset, batches, own, label):
                writer.write(records)
                if on_notes:
                    on_notes(notes)
    except (UserError, RuntimeError) as raised:
        error = _told(raised, label)
        logger.warning("%s", error)
    share_error(accelerator, error)
    on_main(accelerator, lambda: parts.merge(len(dataset)))
    return read_records(path)


def longest_first(dataset: Any, batch_size: int) -> list[list[int]]:
    """All indices in batches of like length, the longest first: little padding, and too little memory shows at once.

    By ``length_hint`` (an image takes hundreds of tokens, so images count before characters), then by index. What
    stands together depends on the data set and ``batch_size`` alone, so rounding and sampling give the same text
    however many processes there are and wherever a run is resumed.
    """

    def length(index: int) -> tuple[int, int, int]:
        try:
            characters, images = hint_of(dataset, index)
        except DataError:  # a row that cannot be read: its record will say so
            characters, images = 0, 0
        return -images, -characters, index

    ordered = sorted(range(len(dataset)), key=length)
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def left(batches: Sequence[list[int]], there: set[int]) -> list[list[int]]:
    """The batches that lack an index; whole, so that they are generated as they would have been."""
    return [batch for batch in batches if not there.issuperset(batch)]


def share(batches: Sequence[list[int]], rank: int, world: int) -> tuple[list[list[int]], int]:
    """The batches of one rank, dealt in turn, and how many of them are its own.

    Every rank generates equally often (ZeRO-3 and FSDP gather weights in each forward pass): a short one repeats the
    last batch, which is not its own.
    """
    mine = list(batches[rank::world])
    rounds = -(-len(batches) // world)
    return mine + batches[-1:] * (rounds - len(mine)), len(mine)


def _answers(
    generator: Generator, dataset: Any, batches: Sequence[list[int]], own: int, label: str
) -> Iterator[tuple[list[Record], list[Note]]]:
    """The records, answered, and the notes of each of a rank's ``own`` batches."""
    collate = GenerationCollator(generator.processor)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=generator.workers,
        generator=torch.Generator(),  # without one it draws from the generator that training draws from
    )
    shown = tqdm(loader, desc=label, disable=not generator.accelerator.is_main_process, leave=False)
    for number, (batch, records, notes) in enumerate(shown):
        answers = generator.generate(batch, draw=batches[number][0])
        if number >= own:
            continue
        for record, answer in zip(records, answers, strict=True):
            record.pred = "" if record.failure else answer
        yield records, notes


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _told(error: UserError | RuntimeError, label: str) -> UserError:
    """One sentence for the user; a RuntimeError that is not the death of a worker process is raised again."""
    # A worker hands over its traceback as the message, the sentence stands in the last line (torch 2.9).
    said = str(error).strip().splitlines()[-1] if str(error).startswith("Caught ") else str(error).strip()
    if isinstance(error, UserError):
        return DataError(said.removeprefix("mllm.errors.DataError: "))
    if not said.startswith("DataLoader worker"):
        raise error
    return DataError(
        f"{label}: a process that reads the data died ({said.splitlines()[0].rstrip('. ')}), mostly of too little "
        "memory: take fewer --dataloader_num_workers (0: none) and start again, what was generated is kept"
    )
