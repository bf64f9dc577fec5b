"""Run by the tests: finetune.py under ddp or an engine of engines.py. Usage: engine_job.py ENGINE CONFIG [OPTIONS]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import engines

from mllm.pipeline import finetune
from mllm.utils.program import leave, run_main

if __name__ == "__main__":
    engine = sys.argv.pop(1)
    if engine != "ddp":
        engines.use(engine)
    leave(run_main(finetune.main))
