"""The argument parser of the verbs: no abbreviations, errors as `UsageError`."""

from __future__ import annotations

import argparse
from typing import NoReturn

from mllm.utils.program import UsageError


class Parser(argparse.ArgumentParser):
    """``Parser("list-cfg", __doc__)``: argparse without its own way of ending the program."""

    def __init__(self, verb: str, doc: str | None) -> None:
        super().__init__(
            prog=f"mllm {verb}",
            description=doc,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """One sentence instead of usage and exit."""
        raise UsageError(f"{message} ('{self.prog} --help' shows what it takes)")
