"""A config file becomes a plain nested dict; imported names, helpers and objects do not get into it."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from mllm.config.find import SECTIONS, inherited_files, parse_config
from mllm.errors import ConfigError, choices

_PLAIN = (str, int, float, bool, type(None))
# A config is its writer's own program: whatever it raises is theirs to put right.
_RAISED_BY_CONFIGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ConfigParsingError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_file(path: Path) -> dict[str, Any]:
    """Read a config with its ``_base_`` files and run its ``custom_imports``; every value is a plain one.

    Dropped: names bound by imports, modules, functions, classes, and names that begin with ``_`` (for helpers).
    ConfigError: any other name that is no section, values that are not plain, files that fail.
    """
    files = inherited_files(path)
    _put_folders_on_path(files)
    values = read_plain(path)
    for name in values:
        if name not in SECTIONS:
            raise ConfigError(
                f"{path}: {name!r} is no section of a config; {choices(name, SECTIONS)}; names of helpers begin with _"
            )
    for name, value in values.items():
        if not isinstance(value, (dict, type(None))):
            raise ConfigError(f"{path}: {name} must be a dict, got {value!r:.60}")
    values = {name: value for name, value in values.items() if value is not None}
    run_custom_imports(values.get("custom_imports"), files)
    return values


def read_plain(path: Path) -> dict[str, Any]:
    """The names a config and its bases assign, without running ``custom_imports``."""
    imported = _imported_names(inherited_files(path))
    raw = _execute(path)
    values = {}
    for name, value in raw.items():
        objects = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
        if name.startswith("_") or name in imported or isinstance(value, objects):
            continue
        values[name] = plain(value, f"{path}: {name}")
    return values


def _execute(path: Path) -> dict[str, Any]:
    if path.suffix not in (".py", ".json", ".yaml", ".yml"):
        raise ConfigError(f"{path}: a config is a .py, .json or .yaml file")
    try:
        # mmengine tells on stdout, which is the verbs' own, of every environment variable that it reads.
        with contextlib.redirect_stdout(sys.stderr):
            return Config._file2dict(str(path), lazy_import=False)[0]  # seen in mmengine 0.10.7
    except KeyError as error:
        message = str(error.args[0]) if error.args else "KeyError"
        twice = re.search(r"Duplicate keys: \{(.*)\}", message)
        if twice:
            message = f"two files of one _base_ list set {twice[1]}; a section comes from one base, the leaf changes it"
        raise ConfigError(f"{path}: {message}") from error
    except SyntaxError as error:
        raise ConfigError(f"{path}: not valid Python: {error.msg} (line {error.lineno})") from error
    except _RAISED_BY_CONFIGS as error:
        raise ConfigError(f"{path}: {type(error).__name__} while reading: {error}") from error


def _imported_names(files: list[Path]) -> set[str]:
    imported, assigned = set(), set()
    for path in files:
        if path.suffix != ".py":
            continue
        for node in ast.walk(parse_config(path)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assigned.add(node.id)
    return imported - assigned


def plain(value: Any, where: str) -> Any:
    """A copy made of dict, list, tuple, str, numbers, bool and None; ConfigError names the place of anything else."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {_key(key, where): plain(one, f"{where}.{key}") for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(one, f"{where}.{index}") for index, one in enumerate(value))
    if isinstance(value, type):
        raise ConfigError(f"{where}: a class; write its name as text: {value.__name__!r}")
    raise ConfigError(f"{where}: {value!r:.60} of type {type(value).__name__}; a config holds plain values")


def _key(key: Any, where: str) -> Any:
    if type(key) not in _PLAIN:
        raise ConfigError(f"{where}: key {key!r:.60} of type {type(key).__name__}; expected text or a number")
    return key


def _put_folders_on_path(files: list[Path]) -> None:
    # At the end: a file of the user's called datasets.py must not take the place of a library.
    for folder in dict.fromkeys(str(path.resolve().parent) for path in reversed(files)):
        if folder not in sys.path:
            sys.path.append(folder)


def run_custom_imports(custom: Any, files: list[Path]) -> None:
    """Import the modules of ``custom_imports = dict(imports=[...])``; a failure is a ConfigError."""
    if custom is None:
        return
    unknown = set(custom) - {"imports", "allow_failed_imports"}
    names = custom.get("imports")
    names = [names] if isinstance(names, str) else names
    if unknown or not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"custom_imports: expected dict(imports=['module', ...]), got {custom!r:.80}")
    if custom.get("allow_failed_imports"):
        raise ConfigError(
            "custom_imports: allow_failed_imports=True is not supported: a plug-in that fails is an error"
        )
    for name in names:
        try:
            module = importlib.import_module(name)
        except (ImportError, SyntaxError, AttributeError, NameError, ValueError) as error:
            raise ConfigError(f"custom_imports: {name!r} could not be imported: {error}") from error
        _refuse_namesake(name, module, files)


def _refuse_namesake(name: str, module: types.ModuleType, files: list[Path]) -> None:
    for path in files:
        mine = path.resolve().parent.joinpath(*name.split(".")).with_suffix(".py")
        loaded = getattr(module, "__file__", None)
        if mine.is_file() and loaded and Path(loaded).resolve() != mine.resolve():
            raise ConfigError(f"custom_imports: {name!r} is {loaded}, not {mine}: give your module another name")
