"""Predict and score data_args.test without training."""

from __future__ import annotations

from mllm.cli.launching import launch

PASSES_DEBUG = True
FLAGS = ("--do_train", "false", "--do_eval", "false", "--do_predict", "true")


def main(argv: list[str]) -> int:
    """Run the verb; gives the exit code of the run."""
    return launch("predict", __doc__, argv, FLAGS)
