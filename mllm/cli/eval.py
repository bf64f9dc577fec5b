"""Evaluate on data_args.validation without training."""

from __future__ import annotations

from mllm.cli.launching import launch

PASSES_DEBUG = True
FLAGS = ("--do_train", "false", "--do_eval", "true", "--do_predict", "false", "--do_multi_predict", "false")


def main(argv: list[str]) -> int:
    """Run the verb; gives the exit code of the run."""
    return launch("eval", __doc__, argv, FLAGS)
