"""What of a model is trained: frozen parts, LoRA adapters, quantised weights; and the report of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mllm.errors import ConfigError, choices
from mllm.models import adapters
from mllm.models.quantization import KINDS, quantize

if TYPE_CHECKING:
    from mllm.models.base import Family


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685) on linear layers, through peft.

    ``targets`` is "linear" (every linear layer of the language part but the head), a list of layer names within the
    language part (``["q_proj", "v_proj"]``), or a regular expression over full module names. ``modules_to_save`` are
    parts or regular expressions that are trained whole beside the adapters. ``dora`` and ``rslora`` switch on arXiv
    2402.09353 and 2312.03732. ``dtype`` is the adapters' type, float32 unless said otherwise.
    """

    r: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: str | Sequence[str] = "linear"
    modules_to_save: Sequence[str] = ()
    dora: bool = False
    rslora: bool = False
    dtype: str = "float32"


@dataclass(frozen=True)
class Tuning:
    """The config part ``tune``.

    ``freeze`` names parts or regular expressions over parameter names; None takes the family's own. With ``lora`` all
    but adapters and ``modules_to_save`` stands still. ``quantize`` ("nf4", "fp4", "int8") holds the linear layers of
    the language part in few bits and needs ``lora``. ``new_tokens`` trains the embedding rows of tokens that the
    tokenizer got for this run (coordinate bins) where the embeddings stand still. ``save`` is "all" or "trained":
    checkpoints hold the trained tensors alone, always so with ``lora`` or rows of tokens; None is the family's choice.
    """

    freeze: Sequence[str] | None = None
    lora: Lora | None = None
    quantize: str | None = None
    double_quant: bool = False
    new_tokens: bool = True
    save: str | None = None

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any] | None) -> Tuning | None:
        """The checked values of ``tune``; None without any; ConfigError that names a wrong key or value."""
        if cfg is None:
            return None
        values = _checked(cls, cfg, "tune")
        if values.get("lora") is not None:
            values["lora"] = Lora(**_checked(Lora, values["lora"], "tune.lora"))
            _check_lora(values["lora"])
        tuning = cls(**values)
        if tuning.save not in (None, "all", "trained"):
            raise ConfigError(f"tune.save={tuning.save!r}; {choices(tuning.save, ('all', 'trained'))}")
        if tuning.quantize is not None and tuning.quantize not in KINDS:
            raise ConfigError(f"tune.quantize={tuning.quantize!r}; {choices(tuning.quantize, KINDS)}")
        if tuning.quantize is not None and tuning.lora is None:
            raise ConfigError("tune.quantize: quantised weights cannot be trained; add tune.lora=dict(r=64, alpha=16)")
        return tuning


@dataclass
class Tuned:
    """What was made of a model, kept as its attribute ``tuned``: the tuning, and the digest of what is not saved."""

    tuning: Tuning
    saves_trained: bool = False
    base_digest: str | None = None

    def to_config(self) -> dict[str, Any]:
        """Plain values that ``Tuning.from_config`` reads back."""
        return asdict(self.tuning)


def tune(model: nn.Module, family: Family, tuning: Tuning | None) -> None:
    """Quantise, add adapters, freeze, and read a partial checkpoint, in place; without ``tuning`` as it was saved."""
    saved = adapters.read_partial(family.partial) if family.partial else None
    before = Tuning.from_config(saved["tune"]) if saved else None
    if before is not None and tuning is not None and before.lora is not None and tuning.lora is None:
        raise ConfigError(
            f"{family.partial} holds LoRA adapters but tune.lora is not set: set it as there, or merge them first "
            f"(mllm convert {family.partial} MERGED --to merged)"
        )
    tuning = tuning or before or Tuning()
    freeze(model, family, family.frozen if tuning.freeze is None else tuning.freeze)
    if tuning.lora is not None:
        _keep_trained(model, family, tuning.lora)
    rows = _new_rows(model) if tuning.new_tokens else None
    model.tuned = Tuned(tuning, bool(tuning.lora or rows) or (tuning.save or family.saves) == "trained")
    if model.tuned.saves_trained:
        _check_new_parts(model, family)
        model.tuned.base_digest = adapters.digest(model)
    if tuning.quantize is not None:
        quantize(_language_layers(model, family), tuning.quantize, double=tuning.double_quant)
    if tuning.lora is not None or rows:
        _inject(model, _peft_config(model, family, tuning.lora, rows), getattr(tuning.lora, "dtype", "float32"))
    if saved is not None:
        adapters.load_trained(model, family.partial)


def freeze(model: nn.Module, family: Family, patterns: Sequence[str]) -> None:
    """Stop the gradient of every parameter whose part is named, or whose name the regular expression matches.

    ConfigError for a pattern that freezes nothing: a misspelt one would train what should stand still.
    """
    for pattern in patterns:
        for _, parameter in _matching(model, family, pattern, "tune.freeze"):
            parameter.requires_grad_(False)


def _peft_config(model: nn.Module, family: Family, lora: Lora | None, rows: Any) -> Any:
    from peft import LoraConfig, TrainableTokensConfig

    if lora is None:
        return TrainableTokensConfig(target_modules=list(rows), token_indices=next(iter(rows.values())))
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_target_pattern(model, family, lora.targets),
        trainable_token_indices=rows,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
    )


def _inject(model: nn.Module, config: Any, dtype: str) -> None:
    """Put peft's adapters into the model; everything else keeps its gradient as it is."""
    from peft import inject_adapter_in_model

    kept = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ConfigError(f"tune.lora: {str(error).splitlines()[0]}") from error
    for name, parameter in model.named_parameters():
        if adapters.is_adapter(name):
            parameter.data = parameter.data.to(getattr(torch, dtype))
        elif id(parameter) in kept:
            parameter.requires_grad_(True)  # peft stops every gradient but its own


def trainable_report(model: nn.Module, family: Family) -> dict[str, tuple[int, int]]:
    """(trained, all) parameters of each part, in the order in which they appear; adapters are a part of their own."""
    report: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        part = "adapters" if adapters.is_adapter(name) else family.part_of(name)
        trained, total = report.get(part, (0, 0))
        count = getattr(parameter, "ds_numel", None) or getattr(parameter, "full_count", parameter.numel())
        report[part] = (trained + count * parameter.requires_grad, total + count)
    return report


def format_report(report: Mapping[str, tuple[int, int]]) -> str:
    """The report as aligned lines, the sum last."""
    rows = [*report.items(), ("all", tuple(map(sum, zip(*report.values(), strict=True))))]
    return "\n".join(
        f"  {part:<12}{trained:>16,} of {total:>16,} trained ({100 * trained / max(total, 1):.1f} %)"
        for part, (trained, total) in rows
    )


def _checked(cls: type, cfg: Any, where: str) -> dict[str, Any]:
    if not isinstance(cfg, Mapping):
        raise ConfigError(f"{where}: expected dict(…), got {cfg!r:.60}")
    known = [one.name for one in fields(cls)]
    for key in cfg:
        if key not in known:
            raise ConfigError(f"{where} has no {key!r}; {choices(key, known)}")
    values = dict(cfg)
    for key in ("freeze", "modules_to_save"):
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    return values


def _check_lora(lora: Lora) -> None:
    for name in ("r", "alpha", "dropout"):
        value = getattr(lora, name)
        if isinstance(value, bool) or not isinstance(value, int if name == "r" else (int, float)):
            raise ConfigError(f"tune.lora.{name}={value!r}; expected a number")
    if not isinstance(getattr(torch, lora.dtype, None), torch.dtype):
        raise ConfigError(f"tune.lora.dtype={lora.dtype!r} is no torch type; expected float32, bfloat16 or float16")


def _keep_trained(model: nn.Module, family: Family, lora: Lora) -> None:
    """Leave the gradient of ``modules_to_save`` alone (frozen ones stay so), stop every other."""
    kept = {
        name
        for pattern in lora.modules_to_save
        for name, _ in _matching(model, family, pattern, "tune.lora.modules_to_save")
    }
    for name, parameter in model.named_parameters():
        if name not in kept:
            parameter.requires_grad_(False)


def _matching(model: nn.Module, family: Family, pattern: str, where: str) -> list[tuple[str, nn.Parameter]]:
    """Parameters whose part is ``pattern`` or whose name it matches; ConfigError if there is none."""
    parts = {family.part_of(name) for name, _ in model.named_parameters()}
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigError(f"{where}: {pattern!r} is neither a part nor a regular expression ({error})") from error
    found = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if family.part_of(name) == pattern or (pattern not in parts and re.search(pattern, name))
    ]
    if not found:
        raise ConfigError(f"{where}: {pattern!r} matches no parameter; {choices(pattern, parts)}")
    return found


def _language_layers(model: nn.Module, family: Family) -> dict[str, nn.Linear]:
    """The linear layers of the language part but its head, by name."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and family.part_of(f"{name}.weight") == "language"
    }


def _target_pattern(model: nn.Module, family: Family, targets: str | Sequence[str]) -> str:
    """The regular expression, as peft matches it with whole module names, that ``targets`` stands for."""
    if isinstance(targets, str) and targets != "linear":
        pattern = targets
    else:
        names = list(_language_layers(model, family))
        ends = sorted({name.rpartition(".")[2] for name in names}) if isinstance(targets, str) else list(targets)
        chosen = [name for name in names if name.rpartition(".")[2] in ends]
        if len({name.rpartition(".")[2] for name in chosen}) < len(set(ends)):
            known = sorted({name.rpartition(".")[2] for name in names})
            wrong = next(end for end in ends if end not in known)
            raise ConfigError(f"tune.lora.targets: the language part has no layer {wrong!r}; {choices(wrong, known)}")
        start = _common_start(chosen)
        pattern = rf"{re.escape(start)}.*\b({'|'.join(map(re.escape, ends))})"
    if not any(re.fullmatch(pattern, name) for name, _ in model.named_modules()):
        raise ConfigError(f"tune.lora.targets: {pattern!r} matches no module, as in 'model.language_model.layers.0.…'")
    return pattern


def _common_start(names: Sequence[str]) -> str:
    """The dotted path that all of ``names`` begin with."""
    shared = []
    for words in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared) + "." if shared else ""


def _new_rows(model: nn.Module) -> dict[str, list[int]] | None:
    """peft's ``trainable_token_indices``: ``new_token_rows`` of embedding and untied head that stand still."""
    rows = list(getattr(model, "new_token_rows", ()))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not rows or embedding.weight.requires_grad:
        return None
    modules = {module: name for name, module in model.named_modules()}
    tied = head.weight is embedding.weight
    return {modules[one]: rows for one in ([embedding] if tied else [embedding, head])}


def _check_new_parts(model: nn.Module, family: Family) -> None:
    trained = {family.part_of(name) for name, one in model.named_parameters() if one.requires_grad}
    lost = [part for part in family.new_parts() if part not in trained]
    if lost and family.partial is None:
        raise ConfigError(
            f"tune: the {lost[0]} is new and stands still, and no checkpoint would hold it: train it "
            f"(tune.lora.modules_to_save=[{lost[0]!r}]), or give its weights"
        )
