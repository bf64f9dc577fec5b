"""Train, evaluate and predict: ``accelerate launch mllm/pipeline/finetune.py config/x.py [options]``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # the script's folder is first on the path; the project's must be found as well
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mllm.utils.logging import setup_logging
from mllm.utils.program import leave, run_main


def main(argv: list[str]) -> None:
    """The whole run, as ``do_train``, ``do_eval``, ``do_predict`` and ``do_multi_predict`` say."""
    from mllm.config import prepare_args
    from mllm.pipeline.run import Run

    setup_logging()
    cfg, args = prepare_args(argv)
    run = Run(cfg, args)
    if args.do_train:
        run.train()
    if args.do_eval:
        run.evaluate()
    if args.do_predict:
        run.predict()
    if args.do_multi_predict:
        run.multi_predict()
    run.finish()


if __name__ == "__main__":
    leave(run_main(main, name="finetune.py"))
