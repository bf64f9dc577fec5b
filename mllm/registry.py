"""The registries. Users fill DATASETS, MODELS and EVALUATORS; FORMATTERS, TEMPLATES and TRANSFORMS are filled here.

Decorate a class with ``@DATASETS.register_module()``; a config names it as
``dict(type="ClassName", **init_arguments)``.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from typing import Any

from mmengine.registry import Registry as _MMEngineRegistry

from mllm.errors import ConfigError, choices

PLUGIN_GROUP = "mllm.plugins"
_loaded_plugins = False


class Registry(_MMEngineRegistry):
    """mmengine's registry, made strict: near names in errors, no guessed imports, required methods checked."""

    def __init__(self, name: str, *, package: str, requires: Sequence[str]) -> None:
        super().__init__(name, scope="mllm", locations=[package])
        self.requires = tuple(requires)

    def import_from_location(self) -> None:
        """Fill the registry, once: every module of our own package, then the entry points of ``mllm.plugins``."""
        if not self._imported:
            self._imported = True
            for location in self._locations:
                package = import_module(location)
                for module in pkgutil.iter_modules(package.__path__, f"{location}."):
                    import_module(module.name)
        load_plugins()

    def get(self, key: str) -> type:
        """The class registered as ``key``, or imported from the dotted path ``key``; ConfigError with near names."""
        if not isinstance(key, str):
            raise ConfigError(f"{self.name}: 'type' must be a name, got {key!r:.60}")
        self.import_from_location()
        if key in self._module_dict:
            return self._module_dict[key]
        if "." in key:
            return self._checked(_import_dotted(key, self.name), key)
        raise ConfigError(f"{key!r} is not registered in {self.name}; {choices(key, self._module_dict)}")

    def build(self, cfg: Mapping[str, Any], **defaults: Any) -> Any:
        """Build ``dict(type=..., **arguments)``; ``defaults`` fill arguments that the config does not give."""
        if not isinstance(cfg, Mapping) or "type" not in cfg:
            raise ConfigError(f"{self.name}: expected dict(type=..., ...), got {cfg!r:.80}")
        arguments = {**defaults, **{key: value for key, value in cfg.items() if key != "type"}}
        cls = self.get(cfg["type"])
        check_arguments(cls, arguments, cfg["type"])
        return cls(**arguments)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self.import_from_location()
        return sorted(self._module_dict)

    def _register_module(self, module: type, module_name: str | list[str] | None = None, force: bool = False) -> None:
        self._checked(module, getattr(module, "__name__", str(module)))
        names = [module_name] if isinstance(module_name, str) else module_name or [module.__name__]
        for name in names:
            other = self._module_dict.get(name)
            if other is not None and not force and _place(other) != _place(module):
                raise ConfigError(f"{name!r} is registered twice in {self.name}: {_place(other)} and {_place(module)}")
            self._module_dict[name] = module

    def _checked(self, cls: Any, key: str) -> Any:
        missing = [name for name in self.requires if not hasattr(cls, name)]
        if missing:
            raise ConfigError(
                f"{key!r} cannot stand in {self.name}: it has no {missing[0]!r} (needed: {', '.join(self.requires)})"
            )
        return cls


def check_arguments(cls: type, arguments: Mapping[str, Any], name: str) -> None:
    """ConfigError if ``cls.__init__`` does not take one of ``arguments`` or lacks a required one."""
    parameters = inspect.signature(cls).parameters
    known, closed = init_parameters(cls)
    for key in arguments:
        if closed and key not in known:
            raise ConfigError(f"{name} takes no argument {key!r}; {choices(key, known)}")
    for key, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if required and key not in arguments:
            raise ConfigError(f"{name} needs the argument {key!r}: add {key}=… beside type={name!r}")


def init_parameters(cls: type) -> tuple[set[str], bool]:
    """Names that ``cls(...)`` takes and whether it takes no other; ``**kwargs`` go on to the base classes."""
    names: set[str] = set()
    closed = False
    for one in inspect.getmro(cls) if inspect.isclass(cls) else [cls]:
        init = one.__dict__.get("__init__") if inspect.isclass(one) else one
        if init is None or one is object:
            continue
        parameters = list(inspect.signature(init).parameters.values())
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names |= {p.name for p in parameters if p.kind in named}
        closed = not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        if closed:
            break
    return names - {"self"}, closed


def load_plugins() -> None:
    """Import what the entry points of the group ``mllm.plugins`` name, once; a failure is a ConfigError."""
    global _loaded_plugins
    if _loaded_plugins:
        return
    _loaded_plugins = True
    for entry in metadata.entry_points(group=PLUGIN_GROUP):
        try:
            entry.load()
        except (ImportError, AttributeError, SyntaxError) as error:
            raise ConfigError(f"plug-in {entry.name!r} ({entry.value}) could not be imported: {error}") from error


def _import_dotted(key: str, registry_name: str) -> Any:
    module_name, _, attribute = key.rpartition(".")
    if not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        raise ConfigError(f"{registry_name}: {key!r} is neither a registered name nor a dotted path")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{registry_name}: type {key!r} could not be imported: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"{registry_name}: module {module_name!r} has no {attribute!r}; {choices(attribute, vars(module))}"
        )
    return getattr(module, attribute)


def _place(cls: Any) -> str:
    return f"{getattr(cls, '__module__', '?')}.{getattr(cls, '__qualname__', cls)}"


DATASETS = Registry("DATASETS", package="mllm.dataset", requires=("__len__", "__getitem__"))
MODELS = Registry("MODELS", package="mllm.models", requires=("build_processor", "build_model", "generate"))
EVALUATORS = Registry("EVALUATORS", package="mllm.evaluation", requires=("parse", "statistics", "reduce", "metrics"))
FORMATTERS = Registry("FORMATTERS", package="mllm.grounding", requires=("format_boxes", "parse_boxes"))
TEMPLATES = Registry("TEMPLATES", package="mllm.conversation", requires=("render",))
TRANSFORMS = Registry("TRANSFORMS", package="mllm.grounding", requires=("__call__",))

REGISTRIES = {registry.name: registry for registry in (DATASETS, MODELS, EVALUATORS, FORMATTERS, TEMPLATES, TRANSFORMS)}
