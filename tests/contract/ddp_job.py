"""Run by the contract test on two processes: one step's loss and gradients of every family's twin, whole and LoRA.

Usage: ddp_job.py OUT.pt
"""

import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.twins import TWINS, built, features

from mllm.engine.loss import token_loss
from mllm.models.tuning import Tuning

COUNT = 8
TUNINGS = {"whole": {"freeze": [], "save": "all"}, "lora": None}


def step(twin, config, rank, world):
    """Loss and gradients of ``COUNT`` samples, split over ``world`` processes; None where parameters stand still."""
    tuning = Tuning.from_config(config or {"lora": twin.lora})
    _, processor, model = built(twin, tuning)
    model.eval()
    samples = features(twin, processor, COUNT)
    items = sum(label != -100 for one in samples for label in one["labels"][1:])
    batch = processor.collate(samples[rank * COUNT // world : (rank + 1) * COUNT // world])
    labels = batch.pop("labels")
    wrapped = DistributedDataParallel(model) if world > 1 else model
    # DDP takes the mean of the gradients, the loss is divided by the tokens of all processes.
    loss = token_loss(wrapped(**batch), labels, items) * world
    loss.backward()
    loss = loss.detach() / world
    if world > 1:
        torch.distributed.all_reduce(loss)
    return loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def main():
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = {(name, kind): step(TWINS[name], TUNINGS[kind], rank, world) for name in TWINS for kind in TUNINGS}
    if rank == 0:
        torch.save({"world": world, "found": found}, sys.argv[1])
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
