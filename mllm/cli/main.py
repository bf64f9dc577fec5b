"""The console script ``mllm``: finds the verb's file, says what exists, turns mistakes into one sentence."""

from __future__ import annotations

import ast
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import mllm
from mllm.errors import choices
from mllm.utils.program import UsageError, run_main

_NOT_VERBS = {"main", "parsing", "launching"}


def verbs() -> dict[str, str]:
    """Verb and first line of its file's docstring. A new file in this folder with a ``main(argv)`` is a new verb."""
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in _NOT_VERBS and not module.name.startswith("_"):
            source = Path(__file__).with_name(f"{module.name}.py").read_text(encoding="utf-8")
            doc = ast.get_docstring(ast.parse(source)) or ""
            found[module.name.replace("_", "-")] = doc.partition("\n")[0]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; gives the exit code."""
    return run_main(_dispatch, argv)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"mllm {mllm.__version__}")
        return 0
    verb, known = argv[0], verbs()
    if verb not in known:
        raise UsageError(f"there is no verb {verb!r}; {choices(verb, known)}")
    module = import_module(f"mllm.cli.{verb.replace('-', '_')}")
    return module.main([word for word in argv[1:] if word != "--debug" or getattr(module, "PASSES_DEBUG", False)]) or 0


def _help() -> str:
    known = verbs()
    width = max(map(len, known))
    lines = [f"  {verb:<{width}}  {doc}" for verb, doc in known.items()]
    head = "usage: mllm VERB ...      mllm VERB --help      mllm --version\n\nverbs:\n"
    return head + "\n".join(lines) + "\n\n--debug anywhere on the line shows the traceback of an error."


if __name__ == "__main__":
    sys.exit(main())
