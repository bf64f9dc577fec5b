"""Run by the tests on one and on two processes: a prediction that may kill itself, as ``kill -9`` would, on its way.

Usage: resume_job.py FOLDER RANK BATCH: the process RANK dies before its batch number BATCH; "- -" for none. One that
comes to its end also writes whole_predictions.jsonl, without an interruption, and compares digests of weights.
"""

import copy
import os
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.made_of import made_of, weights_digest
from mllm.engine.predict import Generator, predict
from mllm.registry import DATASETS
from mllm.utils.logging import setup_logging

COUNT, BATCH = 11, 2


class Mortal(Generator):
    """Dies before its batch number ``last``."""

    calls, last = 0, None

    def generate(self, batch, draw=0):
        if self.calls == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        return super().generate(batch, draw)


def main():
    folder, rank, last = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    accelerator = Accelerator(cpu=True)
    setup_logging()
    torch.manual_seed(0)
    family = tiny.family()
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor)
    dataset = SingleImageConvDataset(DATASETS.build({**tiny.REC, "count": COUNT}), processor, mode="generate")
    options = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.5}
    generator = Mortal(model, family, processor, accelerator, BATCH, 0, options)
    made = made_of(generator, {})
    if rank == str(accelerator.process_index):
        generator.last = int(last)
    predict(generator, dataset, folder / "test_predictions.jsonl", "test", made)
    sys.stdout.write(f"rank {accelerator.process_index} generated {generator.calls} batches\n")
    predict(generator, dataset, folder / "whole_predictions.jsonl", "whole", made)
    sharded = copy.deepcopy(model)
    fully_shard(sharded, mesh=init_device_mesh("cpu", (accelerator.num_processes,)))
    assert next(sharded.parameters()).to_local().shape != next(model.parameters()).shape
    assert weights_digest(sharded) == weights_digest(model)


if __name__ == "__main__":
    main()
