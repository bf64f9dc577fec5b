"""List the configs that names stand for: the working tree's and the package's."""

from __future__ import annotations

import fnmatch

from mllm.cli.parsing import Parser
from mllm.config.find import first_line, list_configs
from mllm.errors import ConfigError, choices


def main(argv: list[str]) -> int:
    """Print one line for each config: name and what its first line says."""
    parser = Parser("list-cfg", __doc__)
    parser.add_argument("-p", "--pattern", default="*", help="part of a name, or a pattern with * and ?")
    pattern = parser.parse_args(argv).pattern.lower()
    known = list_configs()
    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = {name: path for name, path in known.items() if fnmatch.fnmatch(name.lower(), wanted)}
    if not found:
        raise ConfigError(f"no config matches {pattern!r}; {choices(pattern, known)}")
    width = max(map(len, found))
    for name, path in found.items():
        print(f"{name:<{width}}  {first_line(path)}".rstrip())
    return 0
