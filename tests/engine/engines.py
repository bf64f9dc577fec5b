"""FSDP 2 and ZeRO on CPU processes over gloo, for tests alone.

accelerate takes several CPU processes for plain DDP whatever is asked for (seen in 1.15). Naming them GPU or DeepSpeed
processes once the process group exists lets the engines' own code run. What such a test shows: how they split, gather,
save and load. What it does not: CUDA, NCCL, mixed precision, memory, speed.
"""

import os
import sys
from pathlib import Path

import yaml

CONFIGS = Path(__file__).resolve().parents[2] / "accelerate_config"
# As `accelerate launch` (1.15) hands a config file to its processes.
NAMES = {
    "ACCELERATE_DEEPSPEED_DEEPSPEED_CONFIG_FILE": "ACCELERATE_DEEPSPEED_CONFIG_FILE",
    "FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP": "FSDP_TRANSFORMER_CLS_TO_WRAP",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT_FLAG": "ACCELERATE_DEEPSPEED_ZERO3_INIT",
}


VARIANTS = {
    "fsdp_sharded": ("fsdp", {"fsdp_state_dict_type": "SHARDED_STATE_DICT"}),
    "fsdp_recomputing": ("fsdp", {"fsdp_activation_checkpointing": True}),
}


def use(engine):
    """Let this process's trainer run ``engine`` (fsdp, zero2, zero3) as accelerate_config/<engine>.yaml says.

    ``fsdp_sharded`` writes its checkpoints in pieces; of ``fsdp_by_config`` and ``zero2_by_config`` the run's own
    arguments say all.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # DeepSpeed calls ninja
    if engine.endswith("_by_config"):
        name_processes(is_fsdp=engine.startswith("fsdp"))
        return
    engine, changes = VARIANTS.get(engine, (engine, {}))
    config = yaml.safe_load((CONFIGS / f"{engine}.yaml").read_text())
    is_fsdp = config["distributed_type"] == "FSDP"
    prefix, part = ("", "fsdp_config") if is_fsdp else ("ACCELERATE_DEEPSPEED_", "deepspeed_config")
    for name, value in {**config[part], **changes}.items():
        name = prefix + name.upper()
        os.environ[NAMES.get(name, name)] = str(value).lower() if isinstance(value, bool) else str(value)
    os.environ["ACCELERATE_USE_FSDP" if is_fsdp else "ACCELERATE_USE_DEEPSPEED"] = "true"
    name_processes(is_fsdp=is_fsdp)


def name_processes(*, is_fsdp):
    """What accelerate would call the processes on GPUs."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    start = PartialState.__init__

    def init(self, *args, **kwargs):
        fresh = not PartialState._shared_state
        start(self, *args, **kwargs)
        if fresh:
            self.distributed_type = DistributedType.MULTI_GPU if is_fsdp else DistributedType.DEEPSPEED

    PartialState.__init__ = init
