"""Starting real processes in tests."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FINETUNE = REPOSITORY / "mllm" / "pipeline" / "finetune.py"


def environment(**changes):
    clean = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return {**clean, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **changes}


def run(words, timeout=900, **options):
    """One Python process; gives the finished process with its output as text."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment(), **options)


def run_two(words, **options):
    """Two CPU processes under torch's launcher (gloo)."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return run([*launcher, *words], **options)


def checked(done):
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done
