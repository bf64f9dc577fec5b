"""``finetune.py`` with flash attention: the same run, ``model_args.attn_implementation`` set to flash_attention_2."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mllm.pipeline import finetune
from mllm.utils.imports import require
from mllm.utils.program import leave, run_main

SWITCH = "model_args.attn_implementation='flash_attention_2'"


def main(argv: list[str]) -> None:
    """Run with flash attention; ConfigError with the install line where flash-attn is absent."""
    require("flash_attn", "flash")
    finetune.main([*argv, "--cfg-options", SWITCH])


if __name__ == "__main__":
    leave(run_main(main, name="finetune_mem.py"))
