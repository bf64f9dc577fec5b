"""Config files by name: in the working tree first, then in the installed package. Reads no config's code."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path

from mllm.errors import ConfigError

SECTIONS = ("training_args", "model_args", "conversation", "data_args", "generation", "tune", "custom_imports")
_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder(name: str) -> Path | None:
    """``config`` or ``accelerate_config`` as installed with the package, or of the checkout the package lies in."""
    installed = _PACKAGE / f"_{name}"
    checkout = _PACKAGE.parent / name
    if installed.is_dir():
        return installed
    return checkout if checkout.is_dir() and (_PACKAGE.parent / "setup.py").is_file() else None


def config_folders() -> list[Path]:
    """Where names are looked up, in this order: ``./config``, then the folder that ships."""
    folders = [Path("config"), shipped_folder("config")]
    found = [folder for folder in folders if folder is not None and folder.is_dir()]
    return found[:1] if len(found) == 2 and found[0].resolve() == found[1].resolve() else found


def list_configs() -> dict[str, Path]:
    """Name (relative, without ``.py``) of every leaf and its file; the working tree hides the package's."""
    configs: dict[str, Path] = {}
    for folder in config_folders():
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if not any(part.startswith(("_", ".")) for part in relative.parts) and _is_config(path):
                configs.setdefault(relative.with_suffix("").as_posix(), path)
    return dict(sorted(configs.items()))


def _is_config(path: Path) -> bool:
    """False for a module of the user's own that lies beside configs."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return True
    names = {
        target.id for node in body if isinstance(node, ast.Assign) for target in node.targets if hasattr(target, "id")
    }
    return bool(names & {"_base_", *SECTIONS})


def find_config(name: str) -> Path:
    """The file of a config given as path or name, with or without ``.py``; ConfigError with near names."""
    given = Path(name).expanduser()
    spellings = [given, given.with_name(given.name + ".py")] if given.name else []
    if given.suffix == ".py":
        spellings.append(given.with_suffix(""))
    shipped = shipped_folder("config")
    roots = [Path(), Path("config"), *([shipped.parent, shipped] if shipped else [])]
    for root in roots:
        for spelling in spellings:
            path = root / spelling
            if path.is_file() and (root != Path() or path.suffix in (".py", ".json", ".yaml", ".yml")):
                return path
    if shipped and given.parts[:1] == ("config",):
        return find_config(str(Path(*given.parts[1:]))) if len(given.parts) > 1 else _missing(name)
    return _missing(name)


def _missing(name: str) -> Path:
    known = list_configs()
    stem = Path(name).stem
    near = difflib.get_close_matches(stem, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ConfigError(f"config {name!r} not found; {hint}'mllm list-cfg' shows all {len(known)}")


def base_files(path: Path) -> list[Path]:
    """The files that ``_base_`` of a Python config names, in order; ConfigError if one is missing."""
    if path.suffix != ".py":
        return []
    value = literal_assignment(path, "_base_")
    names = [value] if isinstance(value, str) else list(value or [])
    found = []
    for name in names:
        base = path.parent / str(name)
        if not base.is_file():
            raise ConfigError(f"{path}: _base_ names {name!r}, but there is no {base}")
        found.append(base)
    return found


def inherited_files(path: Path, _above: tuple[Path, ...] = ()) -> list[Path]:
    """``path`` and everything it inherits, bases before those that build on them; ConfigError on a circle."""
    if path.resolve() in _above:
        raise ConfigError(f"{path}: inherits itself through _base_")
    files: list[Path] = []
    for base in base_files(path):
        files += inherited_files(base, (*_above, path.resolve()))
    seen = {one.resolve(): one for one in [*files, path]}
    return list(seen.values())


def literal_assignment(path: Path, name: str) -> object:
    """The value of a top-level ``name = <literal>`` (``dict(...)`` calls too), None if there is none."""
    for node in parse_config(path).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            try:
                return _literal(node.value)
            except ValueError as error:
                raise ConfigError(f"{path}:{node.lineno}: {name} must be written out, not computed") from error
    return None


def parse_config(path: Path) -> ast.Module:
    """The syntax tree of a Python config; ConfigError with file and line if it is no Python."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _literal(node: ast.expr) -> object:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords if keyword.arg}
    return ast.literal_eval(node)


def first_line(path: Path) -> str:
    """What a leaf says of itself: the first line of its docstring, or its first comment."""
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").rstrip()
        if line.strip():
            break
    try:
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    except SyntaxError:
        return "(not valid Python)"
