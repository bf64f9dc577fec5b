"""Copy a config with the files it inherits into a folder, so that it works there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mllm.cli.parsing import Parser
from mllm.config.find import find_config, inherited_files, literal_assignment
from mllm.errors import ConfigError


def main(argv: list[str]) -> int:
    """Copy and print what was written; existing files that differ are left alone unless ``--force`` is given."""
    parser = Parser("copy-cfg", __doc__)
    parser.add_argument("name", help="a config as 'mllm list-cfg' shows it, or a path")
    parser.add_argument("folder", help="where to; made if it does not exist")
    parser.add_argument("--force", action="store_true", help="overwrite files that differ")
    arguments = parser.parse_args(argv)
    for target in copy_config(find_config(arguments.name), Path(arguments.folder), force=arguments.force):
        print(target)
    return 0


def copy_config(leaf: Path, folder: Path, *, force: bool = False) -> list[Path]:
    """The files in ``folder``, the leaf last; they lie to each other as the originals do."""
    sources = [path.resolve() for path in [*_own_modules(leaf), *inherited_files(leaf)]]
    root = Path(os.path.commonpath([path.parent for path in sources]))
    pairs = [(source, folder / source.relative_to(root)) for source in dict.fromkeys(sources)]
    for source, target in pairs:
        if target.exists() and not force and target.read_bytes() != source.read_bytes():
            raise ConfigError(f"{target} exists and differs from {source}; --force overwrites it")
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (target.exists() and target.samefile(source)):
            shutil.copyfile(source, target)
    return [target for _, target in pairs]


def _own_modules(leaf: Path) -> list[Path]:
    """Modules of ``custom_imports`` that lie beside the config that names them."""
    found = []
    for path in inherited_files(leaf):
        custom = literal_assignment(path, "custom_imports") if path.suffix == ".py" else None
        names = custom.get("imports", []) if isinstance(custom, dict) else []
        for name in [names] if isinstance(names, str) else names:
            beside = path.parent.joinpath(*name.split(".")).with_suffix(".py")
            found += [beside] if beside.is_file() else []
    return found
