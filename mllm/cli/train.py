"""Train (and evaluate, predict) as the config says: `accelerate launch` around finetune.py."""

from __future__ import annotations

from mllm.cli.launching import launch

PASSES_DEBUG = True
FLAGS = ("--do_train",)


def main(argv: list[str]) -> int:
    """Run the verb; gives the exit code of the run."""
    return launch("train", __doc__, argv, FLAGS)
