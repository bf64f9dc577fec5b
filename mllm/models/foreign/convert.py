"""Reading any known checkpoint, writing it in another layout, and proving that both compute the same."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from mllm.errors import CheckpointError, ConfigError, choices
from mllm.models import adapters
from mllm.models.base import Family
from mllm.models.build import build_family
from mllm.models.checkpoints import read_weights, write_tensors
from mllm.models.foreign import liuhaotian, xtuner
from mllm.models.foreign.parts import assemble, read_language
from mllm.models.huggingface import load_whole
from mllm.models.llava import LLaVA
from mllm.models.processor import Processor, read_saved
from mllm.models.tuning import Tuning

TARGETS = ("hf", "liuhaotian", "projector", "adapter", "merged")
# Half precision rounds sums of weights: what is merged or read back differs by that.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2, "float16": 0.05}


@dataclass
class Source:
    """A checkpoint in memory, and the names of what was trained in it where only that was stored."""

    kind: str
    family: Family
    processor: Processor
    model: nn.Module
    trained: list[str] = field(default_factory=list)


@dataclass
class Options:
    """What a source does not tell: folders of base and tower, alpha of XTuner's LoRA, the type of the weights."""

    base: str | None = None
    tower: str | None = None
    lora_alpha: float | None = None
    dtype: str = "float32"


def convert(source: Path, target: Path, to: str, options: Options) -> list[str]:
    """Write ``source`` as ``target``; gives lines that tell what was read, written and how far both differ.

    Nothing is left at ``target`` unless the proof holds: each tensor lands, and what was written gives the same logits
    when it is read back – in plain transformers for "hf" and "merged".
    """
    if to not in TARGETS:
        raise ConfigError(f"--to {to}: unknown; {choices(to, TARGETS)}")
    if target.exists():
        raise ConfigError(f"{target} is there already: give another place, or remove it")
    if options.base and not (Path(options.base) / "config.json").is_file():
        raise ConfigError(f"--base {options.base}: no config.json there; expected the folder of a model")
    try:
        return _convert(source, target, to, options)
    except (json.JSONDecodeError, SafetensorError, FileExistsError, NotADirectoryError) as error:
        raise CheckpointError(f"{source}: a file cannot be read or written ({str(error).splitlines()[0]})") from error


def _convert(source: Path, target: Path, to: str, options: Options) -> list[str]:
    if (source / "config.json").is_file() and _model_type(source) == "internlm2":
        return _convert_language(source, target, to)
    found = read_source(source, options, quantized=to == "adapter")
    if to in ("liuhaotian", "projector") and not isinstance(found.family, LLaVA):
        raise ConfigError(f"--to {to} is LLaVA's; {source} is of the family {found.family.name!r}")
    lines = [f"read {source}: {found.kind}, {sum(1 for _ in found.model.state_dict())} tensors"]
    lines += [f"  {len(found.trained)} of them trained, first {found.trained[0]}"] if found.trained else []
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        place = Path(work) / "written"
        difference = WRITERS[to](found, place, options)
        if not difference <= TOLERANCE[options.dtype]:
            raise CheckpointError(
                f"{target}: the logits of what was written differ by {difference:.3g} from those read; nothing is kept"
            )
        shutil.move(place, target)
    return [*lines, f"wrote {target} ({to}): logits of both differ by at most {difference:.3g}"]


def read_source(path: Path, options: Options, *, quantized: bool = True) -> Source:
    """The checkpoint at ``path``, whatever its layout; CheckpointError where it is none that is known.

    Unless ``quantized`` the base of QLoRA is read in whole weights, which can hold what is merged in.
    """
    if path.is_file() and path.suffix == ".pth":
        parts, trained = xtuner.read_pth(path, options.base, options.tower, options.lora_alpha)
        return Source("XTuner's iter_N.pth", *assemble(parts, options.dtype), trained)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; expected a checkpoint, or XTuner's iter_N.pth")
    if (path / "projector").is_dir():
        parts, trained = xtuner.read_converted(path, options.base, options.tower)
        return Source("XTuner's converted folder", *assemble(parts, options.dtype), trained)
    config = json.loads((path / "config.json").read_text()) if (path / "config.json").is_file() else {}
    if liuhaotian.is_liuhaotian(config):
        parts, trained = liuhaotian.read_liuhaotian(path, options.base, options.tower)
        return Source("LLaVA's own layout", *assemble(parts, options.dtype), trained)
    return _read_own(path, config, options, quantized)


def _read_own(path: Path, config: dict[str, Any], options: Options, quantized: bool) -> Source:
    saved = read_saved(path)
    if not saved and config.get("model_type") != "llava":
        known = "a run of mllm, Hugging Face's or LLaVA's own layout, InternLM2, XTuner's folder or iter_N.pth"
        raise CheckpointError(
            f"{path}: model_type {config.get('model_type')!r} is none that can be read; known: {known}"
        )
    model_args = {"pretrained": str(path), **({} if saved else {"type": "LLaVA"})}
    model_args |= {"base": options.base} if options.base and adapters.is_partial(path) else {}
    family = build_family({**model_args, "dtype": options.dtype})
    processor = family.build_processor({})
    tuning = Tuning.from_config(adapters.read_partial(path)["tune"]) if family.partial else None
    tuning = tuning if quantized or tuning is None else replace(tuning, quantize=None)
    model = family.build_model(processor, tuning).eval()
    trained = [name for name, one in model.named_parameters() if one.requires_grad] if family.partial else []
    return Source(
        "trained tensors on their base" if trained else "a whole checkpoint", family, processor, model, trained
    )


def probe(model: nn.Module, processor: Processor) -> torch.Tensor:
    """The logits on a fixed prompt with a fixed picture."""
    torch.manual_seed(0)
    size = processor.image["size"]
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(5, min(vocabulary, 200), (1, 12))
    image = torch.tensor([processor.image_ids((size, size))], dtype=torch.long)
    features = [
        {"pixel_values": torch.randn(1, 3, size, size), "input_ids": torch.cat([ids, image, ids.flip(1)], 1)[0]}
    ]
    batch = processor.collate(
        [{**features[0], "input_ids": features[0]["input_ids"].tolist(), "labels": []}], layout="left"
    )
    with torch.no_grad():
        return model.eval()(**batch).logits.float()


def _difference(found: Source, other: nn.Module) -> float:
    return (probe(found.model, found.processor) - probe(other, found.processor)).abs().max().item()


def _write_hf(found: Source, place: Path, options: Options) -> float:
    if adapters.has_adapters(found.model):
        raise ConfigError("--to hf writes whole weights, this checkpoint holds adapters: --to merged merges them")
    model = found.model
    model.tuned.saves_trained, found.processor.family = False, {"type": found.processor.family["type"]}
    found.family.save_weights(model, None, place)
    found.processor.save_pretrained(place)
    try:
        from transformers import AutoModelForImageTextToText

        again = load_whole(AutoModelForImageTextToText, place, {"dtype": model.dtype})
    except ValueError:
        again = _reload(place, options)  # a family of our own: transformers has no class for it
    return _difference(found, again)


def _write_merged(found: Source, place: Path, options: Options) -> float:
    if not adapters.has_adapters(found.model):
        raise ConfigError("--to merged: this checkpoint holds no adapters; --to hf writes its weights")
    expected = probe(found.model, found.processor)
    found.processor.generation.pop("second_pass", None)  # there will be no adapters to switch off
    adapters.merge_adapters(found.model)
    drift = (probe(found.model, found.processor) - expected).abs().max().item()
    return max(drift, _write_hf(found, place, options))


def _write_liuhaotian(found: Source, place: Path, options: Options) -> float:
    tower = options.tower or "vision_tower"
    if not adapters.has_adapters(found.model):
        liuhaotian.write_whole(found.model, found.processor, place, tower)
        return _difference(found, _read_back(found, place, None))
    base = options.base or found.family.model_args.get("pretrained") or found.family.model_args.get("language_model")
    liuhaotian.write_lora(found.model, found.processor, place, str(base), tower)
    with tempfile.TemporaryDirectory() as work:
        # The base in LLaVA's own layout, so that its reader can put the adapters on it.
        start = build_family({name: value for name, value in found.family.model_args.items() if name != "base"})
        processor = start.build_processor({})
        liuhaotian.write_whole(start.load_model(found.processor), processor, Path(work), tower)
        return _difference(found, _read_back(found, place, work))


def _read_back(found: Source, place: Path, base: str | None) -> nn.Module:
    with tempfile.TemporaryDirectory() as work:
        found.model.config.vision_config.save_pretrained(work)
        parts, _ = liuhaotian.read_liuhaotian(place, base, work)
        return assemble(parts, str(found.model.dtype).removeprefix("torch."))[2]


def _write_projector(found: Source, place: Path, options: Options) -> float:
    names = liuhaotian.write_projector(found.model, place / "mm_projector.bin")
    again = read_weights(place / "mm_projector.bin")
    own = {liuhaotian.own_name(name): one for name, one in found.model.state_dict().items()}
    return max((again[name].float() - own[name].float()).abs().max().item() for name in names)


def _write_adapter(found: Source, place: Path, options: Options) -> float:
    if not adapters.has_adapters(found.model):
        raise ConfigError("--to adapter: this checkpoint holds no adapters")
    found.family.save_weights(found.model, None, place)
    found.processor.save_pretrained(place)
    return _difference(found, _reload(place, options))


def _reload(place: Path, options: Options) -> nn.Module:
    family = build_family({"pretrained": str(place), "dtype": options.dtype})
    return family.build_model(family.build_processor({}))


def _convert_language(source: Path, target: Path, to: str) -> list[str]:
    """InternLM2 as Llama: proved by its tensors landing in transformers' Llama, each by name and shape."""
    if to != "hf":
        raise ConfigError(f"--to {to}: a language model alone is converted by --to hf")
    from transformers import AutoModelForCausalLM

    language = read_language(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        place = Path(work) / "written"
        place.mkdir()
        config = {"architectures": ["LlamaForCausalLM"], **language.config}
        (place / "config.json").write_text(json.dumps(config, indent=2))
        write_tensors(language.tensors, place)
        for file in source.glob("*token*"):
            shutil.copy(file, place)
        load_whole(AutoModelForCausalLM, place, {"dtype": "auto"})
        shutil.move(place, target)
    return [
        f"wrote {target}: InternLM2 as Llama, {len(language.tensors)} tensors, all of them land in transformers' class"
    ]


def _model_type(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text()).get("model_type", "")


WRITERS: dict[str, Callable[[Source, Path, Options], float]] = {
    "hf": _write_hf,
    "merged": _write_merged,
    "liuhaotian": _write_liuhaotian,
    "projector": _write_projector,
    "adapter": _write_adapter,
}
