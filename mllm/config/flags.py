"""The command line of a run, split by our own rules: no abbreviations, the config anywhere, bare boolean flags."""

from __future__ import annotations

import ast
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field
from typing import Any

from mllm.config.options import Option, parse_option
from mllm.errors import choices
from mllm.utils.program import UsageError

_TRUE, _FALSE = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}
# Flags that mean something without a value although their field is no boolean.
_BARE = {"resume_from_checkpoint": True, "fsdp": True}
_OPTIONS = "cfg_options"


@dataclass
class CommandLine:
    """What the user typed: config name, options in order, raw words of every flag, ``--debug``."""

    config: str | None = None
    options: list[Option] = field(default_factory=list)
    flags: dict[str, list[str] | None] = field(default_factory=dict)
    debug: bool = False
    help: bool = False


def split_command_line(argv: Sequence[str], takes: Callable[[str], str]) -> CommandLine:
    """Sort the words of ``argv``; ``takes(flag)`` says "bool", "maybe", "one" or "many", or raises UsageError."""
    line = CommandLine()
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            line.help = True
        elif word == "--debug":
            line.debug = True
        elif word.startswith("--"):
            _take_flag(line, word, words, takes)
        elif word.startswith("-") and len(word) > 1:
            raise UsageError(f"unknown flag {word!r}: flags begin with two dashes")
        elif line.config is None:
            line.config = word
        else:
            raise UsageError(
                f"two configs on the line, {line.config!r} and {word!r}; or is a -- missing before a flag?"
            )
    return line


def _take_flag(line: CommandLine, word: str, words: list[str], takes: Callable[[str], str]) -> None:
    name, sign, value = word[2:].partition("=")
    name = name.replace("-", "_")
    if name == _OPTIONS:
        given = [value] if sign else _while(words, lambda one: "=" in one)
        if not given:
            raise UsageError("--cfg-options needs at least one key=value")
        line.options += [parse_option(one) for one in given]
        return
    kind = takes(name)
    if sign:
        line.flags[name] = [value]
    elif kind == "bool":
        line.flags[name] = [words.pop(0)] if words and words[0].lower() in _TRUE | _FALSE else None
    elif kind == "maybe":
        line.flags[name] = [words.pop(0)] if words and _is_value(words[0]) else None
    elif kind == "many":
        line.flags[name] = _while(words, _is_value)
    else:
        line.flags[name] = [words.pop(0)] if words and not words[0].startswith("--") else []


def _while(words: list[str], wanted: Callable[[str], bool]) -> list[str]:
    taken = []
    while words and not words[0].startswith("--") and wanted(words[0]):
        taken.append(words.pop(0))
    return taken


def _is_value(word: str) -> bool:
    return not word.startswith("--") and not word.endswith(".py")


class FlagTable:
    """The flags that exist: fields of the arguments, ``no_`` before boolean ones, and names of the past."""

    def __init__(self, argument_fields: Iterable[Field[Any]], old_names: Mapping[str, Any]) -> None:
        self.fields = {one.name: one for one in argument_fields if one.init}
        self.old = {name: kind for name, kind in old_names.items() if name not in self.fields}

    def takes(self, name: str) -> str:
        """How many words follow a flag; UsageError with the nearest name for an unknown one."""
        if name in self.old:
            return self.old[name]
        positive = name[3:] if name.startswith("no_") and name not in self.fields else name
        if positive not in self.fields or name == "debug":
            known = [f"--{one}" for one in (*self.fields, *self.old, _OPTIONS)]
            raise UsageError(f"unknown flag --{name}; {choices('--' + name, known)}")
        members = _members(self.fields[positive].type)
        if name != positive and bool not in members:
            raise UsageError(f"unknown flag --{name}: --{positive} is no boolean flag")
        if positive in _BARE:
            return "maybe"
        if bool in members and members <= {bool, type(None)}:
            return "bool"
        return "many" if any(typing.get_origin(one) is list or one is list for one in members) else "one"

    def convert(self, name: str, words: list[str] | None) -> tuple[str, Any]:
        """Field (or old name) and value of one flag; UsageError if the words do not fit its type."""
        if name in self.old:
            return name, _old_value(name, words, self.old[name])
        positive = name[3:] if name.startswith("no_") and name not in self.fields else name
        if words is None:
            return positive, _BARE.get(positive, True) if name == positive else False
        members = _members(self.fields[positive].type)
        if self.takes(name) == "many":
            if not words:
                raise UsageError(f"--{name} needs a value")
            return positive, words if len(words) > 1 else _listed(words[0])
        if len(words) != 1:
            raise UsageError(f"--{name} needs a value")
        value = convert_text(words[0], members, f"--{name}", bare=positive in _BARE)
        return positive, (not value) if name != positive else value


def _members(annotation: Any) -> set[Any]:
    """The alternatives of a type: ``float | None`` → {float, NoneType}."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return {leaf for one in typing.get_args(annotation) for leaf in _members(one)}
    return {annotation}


def convert_text(text: str, members: set[Any], name: str, *, bare: bool = False) -> Any:
    """One word as the first of bool, int, float, dict that the type names, else as text."""
    if type(None) in members and text in ("None", "null"):
        return None
    if bare and text.lower() in ("true", "false"):
        return True if text.lower() == "true" else None
    if bool in members and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    for kind in (int, float):
        if kind in members:
            try:
                return kind(text)
            except ValueError:
                if str not in members:
                    raise UsageError(f"{name}: expected {_KIND[kind]}, got {text!r}") from None
    if members <= {bool, type(None)}:
        raise UsageError(f"{name}: expected true or false, got {text!r}")
    takes_dict = any(one is dict or typing.get_origin(one) is dict for one in members)
    return _dict(text, name) if takes_dict and text.startswith("{") else text


_KIND = {int: "a whole number", float: "a number"}


def _dict(text: str, name: str) -> dict[str, Any]:
    for read in (json.loads, ast.literal_eval):
        try:
            return dict(read(text))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    raise UsageError(f"{name}: expected a dict in JSON, got {text!r:.80}")


def _listed(word: str) -> Any:
    """A single word of a list flag: ``["a", "b"]`` as JSON, else the word itself, which such fields take too."""
    if not word.startswith("["):
        return None if word in ("None", "null") else word
    try:
        return list(json.loads(word))
    except ValueError:
        raise UsageError(f"expected a list in JSON, got {word!r:.80}") from None


def _old_value(name: str, words: list[str] | None, kind: str) -> Any:
    if kind == "bool":
        return convert_text(words[0], {bool}, f"--{name}") if words else True
    if not words:
        raise UsageError(f"--{name} needs a value")
    if kind == "many":
        return words
    try:
        return float(words[0]) if "." in words[0] else int(words[0])
    except ValueError:
        return words[0]


def check_value(one: Field[Any], value: Any, where: str) -> None:
    """UsageError if a value from a config cannot be one of the field's type (text for a number, and the like)."""
    members = _members(one.type)
    if value is None or not members <= {bool, int, float, type(None)}:
        return
    fits = isinstance(value, bool) if bool in members else isinstance(value, (int, float)) and value is not True
    if members <= {int, type(None)}:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif bool not in members:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits:
        kind = "true or false" if bool in members else _KIND[int if members <= {int, type(None)} else float]
        raise UsageError(f"{where}: expected {kind}, got {value!r:.60}")
