"""Defaults < ``_base_`` < file < ``--cfg-options`` < flags: one resolved config, and where each value came from."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import Config

from mllm.config.checks import check_output_folder, check_tasks, check_world, resolve_resume
from mllm.config.deepspeed import resolve_deepspeed
from mllm.config.find import base_files, find_config
from mllm.config.flags import CommandLine, FlagTable, check_value, split_command_line
from mllm.config.load import load_file, read_plain
from mllm.config.options import apply_options
from mllm.config.renamed import old_flags, translate
from mllm.errors import choices
from mllm.utils.distributed import is_main_process
from mllm.utils.program import UsageError

if TYPE_CHECKING:
    from mllm.config.arguments import Seq2SeqArguments

USAGE = """usage: finetune.py CONFIG [--cfg-options KEY.KEY=VALUE ... +NEW.KEY=VALUE ...] [--debug] [flags]

CONFIG   a file, or a name that 'mllm list-cfg' shows
flags    every field of transformers' Seq2SeqTrainingArguments, among them --output_dir, --do_train, --do_eval,
         --do_predict, --resume_from_checkpoint [PATH|auto], --num_train_epochs; and
"""


@dataclass
class Resolved:
    """A run's config after all layers; ``origins`` maps the path of each plain value to where it was set."""

    path: Path
    values: dict[str, Any]
    origins: dict[tuple[Any, ...], str] = field(default_factory=dict)
    debug: bool = False

    @property
    def config(self) -> Config:
        """With attribute access, as mmengine gives it: ``cfg.data_args.train``."""
        return Config(copy.deepcopy(self.values), filename=str(self.path))


def prepare_args(argv: Sequence[str] | None = None) -> tuple[Config, Seq2SeqArguments]:
    """Read the config and the command line of a run, check both, set up the device and the process group.

    ``cfg.training_args`` holds what was set, under today's names; the defaults are in the arguments alone.
    """
    from mllm.config.arguments import build_arguments

    resolved = resolve(sys.argv[1:] if argv is None else argv)
    training = resolved.values.setdefault("training_args", {})
    check_tasks(resolved.values, resolved.path)
    if is_main_process():
        check_output_folder(training)
    values = {**copy.deepcopy(training), "resume_from_checkpoint": resolve_resume(training)}
    if (settings := resolve_deepspeed(training)) is not None:
        values["deepspeed"] = settings
    arguments = build_arguments(values)
    if not training.get("do_train"):
        arguments.eval_strategy = "no"  # transformers would want a data set for it
    check_world(arguments.world_size)
    return resolved.config, arguments


def resolve(argv: Sequence[str]) -> Resolved:
    """All layers of the command line ``argv`` in one config; nothing is built, written or launched."""
    fields = argument_fields()
    table = FlagTable(fields.values(), old_flags(fields))
    line = split_command_line(argv, table.takes)
    if line.help:
        sys.stdout.write(_help(fields))
        raise SystemExit(0)
    if line.config is None:
        raise UsageError(f"no config on the command line{_swallowed(line)}; 'mllm list-cfg' shows what ships")
    path = find_config(line.config)
    values = load_file(path)
    origins = file_origins(path, values)
    training = translate(values.get("training_args", {}), fields, {}, str(path))
    _follow_renames(origins, values.get("training_args", {}), training, path)
    values["training_args"] = training
    before = copy.deepcopy(values)
    apply_options(values, line.options, [*fields, *old_flags(fields)])
    _translate_options(values, before, fields)
    _set_changed(origins, before, values, "--cfg-options")
    before = copy.deepcopy(values)
    flags = dict(table.convert(name, words) for name, words in line.flags.items())
    values["training_args"] |= translate(flags, fields, values["training_args"], "command line")
    _set_changed(origins, before, values, "flag")
    for name in flags.keys() & values["training_args"].keys():
        origins |= {key: "flag" for key, _ in leaves(values["training_args"][name], ("training_args", name))}
    check_training_args(values["training_args"], fields, path)
    return Resolved(path, values, origins, line.debug)


def argument_fields() -> dict[str, dataclasses.Field[Any]]:
    """The fields of Seq2SeqArguments by name, whatever version of transformers is installed."""
    from mllm.config.arguments import Seq2SeqArguments

    return {one.name: one for one in dataclasses.fields(Seq2SeqArguments) if one.init}


def check_training_args(values: Mapping[str, Any], fields: Mapping[str, Any], path: Path) -> None:
    """UsageError for a name that is no field, or a value that cannot be of its type."""
    for name, value in values.items():
        if name not in fields:
            raise UsageError(f"{path}: training_args has no {name!r}; {choices(str(name), fields)}")
        if name != "resume_from_checkpoint":
            check_value(fields[name], value, f"{path}: training_args.{name}")


def _translate_options(values: dict[str, Any], before: dict[str, Any], fields: Mapping[str, Any]) -> None:
    old, current = before["training_args"], values.get("training_args") or {}
    changed = {name: value for name, value in current.items() if name not in old or old[name] != value}
    values["training_args"] = {**current, **translate(changed, fields, current, "--cfg-options")}
    for name in old_flags(fields):
        values["training_args"].pop(name, None)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Path and value of everything that is no container, and of empty containers."""
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif isinstance(value, (list, tuple)) and value:
        for index, one in enumerate(value):
            yield from leaves(one, (*path, index))
    else:
        yield path, value


def file_origins(path: Path, values: Mapping[str, Any]) -> dict[tuple[Any, ...], str]:
    """Which file of the inheritance set each value: a base where its value is still there, else ``path``."""
    origins = {key: str(path) for key, _ in leaves(values)}
    for base in base_files(path):
        content = read_plain(base)
        inherited = file_origins(base, content)
        for key, value in leaves(content):
            if key in origins and repr(_at(values, key)) == repr(value):
                origins[key] = inherited[key]
    return origins


def _at(values: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def _set_changed(origins: dict[tuple[Any, ...], str], before: Any, after: Any, origin: str) -> None:
    old, new = dict(leaves(before)), dict(leaves(after))
    for key, value in new.items():
        if key not in old or repr(old[key]) != repr(value):
            origins[key] = origin
    for key in [key for key in origins if key not in new]:
        del origins[key]


def _follow_renames(
    origins: dict[tuple[Any, ...], str], old: Mapping[str, Any], new: Mapping[str, Any], path: Path
) -> None:
    gone = [key for key in origins if key[0] == "training_args" and len(key) > 1 and key[1] not in new]
    sources = {origins.pop(key) for key in gone}
    for key, _ in leaves(new, ("training_args",)):
        origins.setdefault(key, sources.copy().pop() if len(sources) == 1 else str(path))


def _swallowed(line: CommandLine) -> str:
    for name in ("resume_from_checkpoint", "report_to"):
        words = line.flags.get(name)
        if words:
            return f" (--{name} took {words[-1]!r})"
    return ""


def _help(fields: Mapping[str, dataclasses.Field[Any]]) -> str:
    from transformers import Seq2SeqTrainingArguments

    theirs = {one.name for one in dataclasses.fields(Seq2SeqTrainingArguments)}
    ours = [f"         --{name}: {one.metadata.get('help', '')}" for name, one in fields.items() if name not in theirs]
    return USAGE + "\n".join(ours) + "\n"
