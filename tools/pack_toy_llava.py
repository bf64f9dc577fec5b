"""Pack the pretrained small LLaVA for shipping: half precision, with the logs and configs of its stages beside it.

Run from the repository root: ``python tools/pack_toy_llava.py STAGE1_DIR STAGE2_DIR``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from mllm.registry import MODELS


def pack(stages: list[Path], folder: Path) -> None:
    """Write weights, processor, and of each stage the log (``stageN_log.json``) and config (``stageN_config.py``)."""
    family = MODELS.build({"type": "LLaVA", "pretrained": str(stages[-1])})
    processor = family.build_processor({})
    model = family.build_model(processor).to(torch.float16)
    family.save_weights(model, None, folder)
    processor.save_pretrained(folder)
    for name, stage in zip(("stage1", "stage2"), stages, strict=True):
        history = json.loads((stage / "trainer_state.json").read_text())["log_history"]
        run = json.loads((stage / "run.json").read_text())
        log = {"versions": run["versions"], "python": run["python"], "seed": run["seed"], "log": history}
        (folder / f"{name}_log.json").write_text(json.dumps(log) + "\n")
        (folder / f"{name}_config.py").write_text((stage / "config.py").read_text())


if __name__ == "__main__":
    target = Path("mllm/assets/toy_llava")
    pack([Path(word) for word in sys.argv[1:]], target)
    print(f"wrote {target}")
