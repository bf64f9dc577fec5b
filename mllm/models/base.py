"""What every model family shares: it builds a processor and a model from plain values, and generates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import nn

from mllm.errors import CheckpointError, ConfigError
from mllm.models import adapters
from mllm.models.checkpoints import load_weights, save_weights
from mllm.models.processor import Processor
from mllm.models.tuning import Tuning, tune
from mllm.utils.storage import resolve_path


class Family:
    """Base of what MODELS holds: it builds processor and model from plain values, and generates.

    It keeps no tensors, so DDP, FSDP and DeepSpeed have nothing to wrap here. ``parts`` maps a part's name to the
    words in parameter names that belong to it, first match wins; "language" takes the rest. ``frozen`` are the parts
    that stand still unless ``tune`` says otherwise, ``saves`` what a checkpoint then holds ("all" or "trained").
    ``decayed`` are words in the names of parameters that weight decay is for; None means all but norms and biases.
    ``wrap`` names the layer classes that FSDP wraps, ``file_names`` are pairs (prefix in memory, prefix in weight
    files). ``partial`` is the folder of a checkpoint that holds trained
    tensors alone, to be put on what the other arguments build; ``model_args`` is what the config gave. ``build_family``
    sets both.
    """

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    frozen: ClassVar[tuple[str, ...]] = ()
    saves: ClassVar[str] = "all"
    decayed: ClassVar[tuple[str, ...] | None] = None
    wrap: ClassVar[tuple[str, ...]] = ()
    file_names: ClassVar[tuple[tuple[str, str], ...]] = ()
    partial: Path | None = None
    model_args: Mapping[str, Any] = MappingProxyType({})

    def build_processor(
        self, conversation: Mapping[str, Any], generation: Mapping[str, Any] | None = None
    ) -> Processor:
        """The processor; touches no weights."""
        raise NotImplementedError

    def load_model(self, processor: Processor) -> nn.Module:
        """The model with its weights on the CPU, embeddings as long as the tokenizer; nothing is frozen yet."""
        raise NotImplementedError

    def build_model(
        self, processor: Processor, tuning: Tuning | None = None, init_from: str | None = None
    ) -> nn.Module:
        """The model as it is trained: loaded, quantised, with adapters, frozen as ``tuning`` says.

        ``init_from`` is a checkpoint whose weights replace those that were loaded: all of them, or those that a
        checkpoint of trained tensors holds.
        """
        model = self.load_model(processor)
        folder = None if init_from is None else checkpoint_folder(init_from, "init_from")
        names: Sequence[str] = ()
        if folder is not None and not adapters.holds_lora(folder):
            names = self._start_from(model, folder)
        tune(model, self, tuning)
        still = [name for name, one in model.named_parameters() if not one.requires_grad]
        if model.tuned.saves_trained and set(names) & {name.replace(".base_layer.", ".") for name in still}:
            raise ConfigError(
                f"init_from={init_from!r} holds weights that stand still here and that no checkpoint of this run would "
                "hold: name it by model_args.pretrained, or train those parts"
            )
        if folder is not None and adapters.holds_lora(folder):
            adapters.load_trained(model, folder)
        return model

    def _start_from(self, model: nn.Module, folder: Path) -> Sequence[str]:
        """Load what a checkpoint without adapters holds; gives its names."""
        if adapters.is_partial(folder):
            return adapters.load_some(model, folder)
        load_weights(model, folder, self.file_names)
        return [name for name, _ in model.named_parameters()]

    def generate(self, model: nn.Module, batch: Mapping[str, torch.Tensor], **options: Any) -> torch.Tensor:
        """New ids alone (B, new); ``batch`` is left-padded, ``model`` may be wrapped by DDP."""
        unwrapped = getattr(model, "module", model)
        ids = unwrapped.generate(**batch, **options)
        return ids[:, batch["input_ids"].shape[1] :]

    def save_weights(self, model: nn.Module, state: Mapping[str, torch.Tensor] | None, folder: str | Path) -> None:
        """Write config and weights, or the trained tensors alone where ``tune`` says so.

        ``state`` is the gathered state of a model that is held in pieces.
        """
        if model.tuned.saves_trained:
            adapters.save_trained(model, state, folder)
        else:
            save_weights(model, state, folder, self.file_names)

    def load_weights(self, model: nn.Module, folder: str | Path) -> None:
        """Read the weights of a checkpoint into the model; CheckpointError unless every tensor lands."""
        if adapters.is_partial(folder):
            adapters.load_trained(model, folder)
        else:
            load_weights(model, folder, self.file_names)

    def new_parts(self) -> tuple[str, ...]:
        """Parts that start at random: a checkpoint of trained tensors must hold them."""
        return ()

    def part_of(self, parameter_name: str) -> str:
        """The part ("vision", "projector", "language", …) that a parameter belongs to."""
        for part, words in self.parts.items():
            if any(word in parameter_name for word in words):
                return part
        return "language"


def checkpoint_folder(path: str | None, what: str) -> Path:
    """The folder that a config names; ``asset:NAME`` stands for one that ships with the package."""
    if path is None:
        raise ConfigError(f"{what} is not set; name a folder, for example --cfg-options {what}=/path/to/weights")
    if path.startswith("asset:"):
        from importlib.resources import files

        folder = Path(str(files("mllm.assets") / path[len("asset:") :]))
    else:
        folder = Path(resolve_path(path))
    if not folder.is_dir():
        raise CheckpointError(f"{what}: {str(folder)!r} does not exist; expected a folder in Hugging Face's layout")
    return folder


def weights_folder(path: str | None, what: str) -> Path:
    """The folder of a checkpoint; CheckpointError unless it holds a ``config.json``."""
    folder = checkpoint_folder(path, what)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{what}: {str(folder)!r} has no config.json; expected a folder in Hugging Face's layout")
    return folder
