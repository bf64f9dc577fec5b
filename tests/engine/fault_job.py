"""Run by the tests: finetune.py on which a fault falls. Usage: fault_job.py FAULT CONFIG [OPTIONS]

FAULT: ``none``; ``save:N`` (killed at the N-th file that the save of step 2 opens, renames or removes); ``term:RANK``
(RANK gets SIGTERM within step 2); ``kill:RANK`` (RANK is killed within step 2); ``full:BYTES`` (no file may be larger).
"""

import os
import resource
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mllm.engine.trainer import MultimodalTrainer
from mllm.pipeline import finetune
from mllm.utils.distributed import rank
from mllm.utils.program import leave, run_main

WRITES = ("open", "os.rename", "os.remove", "os.mkdir")


def kill_at_write(last):
    """Die, as of ``kill -9``, at the ``last``-th write into checkpoint-2."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event not in WRITES or "checkpoint-2" not in str(arguments[0]):
            return
        if event == "open" and not set(str(arguments[1])) & set("wax+"):
            return
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def signal_in_step(number, rank_of_fault):
    """``number`` comes to one rank in the midst of its second step."""
    before = MultimodalTrainer.training_step

    def training_step(self, *args, **kwargs):
        loss = before(self, *args, **kwargs)
        if self.state.global_step == 1 and rank() == rank_of_fault:
            os.kill(os.getpid(), number)
        return loss

    MultimodalTrainer.training_step = training_step


def main():
    fault, _, value = sys.argv.pop(1).partition(":")
    if fault == "save":
        kill_at_write(int(value))
    elif fault in ("term", "kill"):
        signal_in_step({"term": signal.SIGTERM, "kill": signal.SIGKILL}[fault], int(value))
    elif fault == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
    return run_main(finetune.main, name="finetune.py")


if __name__ == "__main__":
    leave(main())
