"""The tiny twins of all families (tests/models/twins_*.py), built alike in every process."""

import importlib
from pathlib import Path

import torch

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.models.build import build_family

TWINS = {}
for file in sorted((Path(__file__).resolve().parents[1] / "models").glob("twins_*.py")):
    TWINS |= importlib.import_module(f"models.{file.stem}").TWINS


def built(twin, tuning=None):
    """Family, processor and model of a twin, its weights drawn from a fixed seed."""
    torch.manual_seed(0)
    family = build_family(twin.model_args)
    processor = family.build_processor(twin.conversation, {"max_new_tokens": 8})
    model = family.build_model(processor, tuning)
    twin.prepare(model)
    return family, processor, model


def features(twin, processor, count=4, mode="train"):
    """The features of the twin's first samples."""
    return [sample.features for sample in samples(twin, processor, mode, count)]


def samples(twin, processor, mode, count=4):
    """The twin's first samples."""
    dataset = SingleImageConvDataset(twin.items(count), processor, mode=mode)
    return [dataset[index] for index in range(count)]
