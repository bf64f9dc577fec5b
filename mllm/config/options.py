"""``--cfg-options a.b=1 +a.c=2``: strict assignments into a config; only ``+`` adds a key nobody knows."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mllm.config.find import SECTIONS
from mllm.errors import ConfigError, choices
from mllm.registry import REGISTRIES, Registry, init_parameters

_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_FLOATS = {"inf", "-inf", "+inf", "nan"}
_NUMBER = re.compile(r"[+-]?(\d+|\d+\.\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|\d+[eE][+-]?\d+)")
SECTION_KEYS = {
    "tune": ("freeze", "lora", "quantize", "double_quant", "new_tokens", "save"),
    "conversation": ("template", "formatter", "transforms", "max_length"),
    "data_args": ("train", "validation", "test", "multitest", "on_error", "error_budget"),
    "custom_imports": ("imports",),
    "tune.lora": ("r", "alpha", "dropout", "targets", "modules_to_save", "dora", "rslora", "dtype"),
}
_REGISTRY_OF = {
    "model_args": "MODELS",
    "evaluators": "EVALUATORS",
    "formatter": "FORMATTERS",
    "template": "TEMPLATES",
    "transforms": "TRANSFORMS",
    "data_args": "DATASETS",
}


@dataclass(frozen=True)
class Option:
    """One assignment: where, what, and whether the key may be new (``+``)."""

    keys: tuple[str, ...]
    value: Any
    add: bool = False

    @property
    def name(self) -> str:
        """The dotted key as the user wrote it."""
        return ".".join(self.keys)


def parse_option(text: str) -> Option:
    """``a.b=1`` or ``+a.b=1``; ConfigError if it is neither."""
    left, sign, right = text.partition("=")
    add, name = left.startswith("+"), left.lstrip("+").strip()
    keys = tuple(name.split("."))
    if not sign or not all(keys):
        raise ConfigError(f"--cfg-options: expected key.key=value, got {text!r}")
    return Option(keys, parse_value(right, name), add)


def parse_value(text: str, name: str) -> Any:
    """A number, true/false/null, or a list, dict or quoted string in Python's or JSON's spelling; else the text.

    ``1,2`` without brackets is a list. Nothing is evaluated.
    """
    text = text.strip()
    if text in _WORDS:
        return _WORDS[text]
    if text in _FLOATS or _NUMBER.fullmatch(text):
        return _number(text)
    if text[:1] in ("[", "{", "(", '"', "'"):
        return _bracketed(text, name)
    parts = text.split(",")
    if len(parts) > 1 and all(_NUMBER.fullmatch(part.strip()) for part in parts):
        return [_number(part) for part in parts]
    return text


def _number(text: str) -> int | float | str:
    text = text.strip()
    if re.fullmatch(r"[+-]?\d+", text):
        # 007 is an identifier, not a number.
        return text if re.match(r"[+-]?0\d", text) or len(text) > 300 else int(text)
    return float(text)


def _bracketed(text: str, name: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        return value
    raise ConfigError(
        f"--cfg-options {name}: cannot read {text!r:.80}; expected a Python or JSON value, texts in quotes"
    )


def apply_options(cfg: dict[str, Any], options: Iterable[Option], argument_names: Iterable[str] | None = None) -> None:
    """Assign in place, in order. ``argument_names``: what ``training_args`` may hold besides what it holds."""
    for option in options:
        parent, key = _parent(cfg, option, argument_names)
        _assign(parent, key, option, argument_names)


def _parent(cfg: dict[str, Any], option: Option, argument_names: Iterable[str] | None) -> tuple[Any, str]:
    """The container that holds the last key; with ``+`` missing dicts on the way are made."""
    here: Any = cfg
    for depth, key in enumerate(option.keys[:-1]):
        path = option.keys[:depth]
        if isinstance(here, list):
            here = here[_index(here, key, option)]
            continue
        if not isinstance(here, dict):
            raise _no_container(here, path, option)
        if here.get(key) is None:
            if key not in here:
                _check_key(here, path, key, option, argument_names)
            if not (option.add or (depth == 0 and key in SECTIONS)):
                raise ConfigError(
                    f"--cfg-options {option.name}: {'.'.join((*path, key))} is not set; give all of it, or write "
                    f"+{option.name}=… to add it"
                )
            here[key] = {}
        here = here[key]
    return here, option.keys[-1]


def _assign(parent: Any, key: str, option: Option, argument_names: Iterable[str] | None) -> None:
    if isinstance(parent, list):
        if option.add and key == str(len(parent)):
            parent.append(option.value)
        else:
            parent[_index(parent, key, option)] = option.value
        return
    if not isinstance(parent, dict):
        raise _no_container(parent, option.keys[:-1], option)
    _check_key(parent, option.keys[:-1], key, option, argument_names)
    old = parent.get(key)
    if isinstance(old, dict) and not isinstance(option.value, (dict, type(None))):
        raise ConfigError(f"--cfg-options {option.name}: holds a dict, got {option.value!r:.60}; set one of its keys")
    parent[key] = option.value


def _check_key(
    holder: Mapping[str, Any], path: tuple[str, ...], key: str, option: Option, argument_names: Iterable[str] | None
) -> None:
    if key in holder or (option.add and path):
        return
    known = {*holder, *_known_keys(holder, path, argument_names)}
    if key not in known:
        where = ".".join(path) or "the config"
        plus = f"; +{option.name}=… adds a new key" if path else ""
        raise ConfigError(f"--cfg-options {option.name}: {where} has no {key!r}; {choices(key, map(str, known))}{plus}")


def _known_keys(holder: Mapping[str, Any], path: tuple[str, ...], argument_names: Iterable[str] | None) -> set[str]:
    """Keys that may be set although ``holder`` does not hold them."""
    if not path:
        return set(SECTIONS)
    if path == ("training_args",):
        return set(argument_names or ())
    if path == ("generation",):
        from transformers import GenerationConfig

        return {name for name in vars(GenerationConfig()) if not name.startswith("_")} - {"transformers_version"} | {
            "second_pass"
        }
    known = set(SECTION_KEYS.get(".".join(path), ()))
    registry = registry_at(path)
    if registry is not None and isinstance(holder.get("type"), str):
        known |= init_parameters(registry.get(holder["type"]))[0] | {"type"}
        known |= {"base"} if path == ("model_args",) else set()
    return known


def registry_at(path: tuple[str, ...]) -> Registry | None:
    """The registry whose types stand at this place of a config; None where nothing is built."""
    if path[:1] == ("model_args",) and len(path) > 1:
        return None
    names = [_REGISTRY_OF[key] for key in path if key in _REGISTRY_OF]
    return REGISTRIES[names[-1]] if names else None


def _index(values: list[Any], key: str, option: Option) -> int:
    if not key.isdigit() or int(key) >= len(values):
        raise ConfigError(f"--cfg-options {option.name}: {key!r} is no position in a list of {len(values)}")
    return int(key)


def _no_container(value: Any, path: tuple[str, ...], option: Option) -> ConfigError:
    return ConfigError(f"--cfg-options {option.name}: {'.'.join(path)} is {value!r:.60} and has no keys of its own")
