"""DeepSpeed's settings by name: those that ship lie in ``accelerate_config/deepspeed``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.config.find import shipped_folder
from mllm.errors import ConfigError, choices
from mllm.utils.imports import require

# What accelerate's launcher (1.10 to 1.15) hands to its processes.
LAUNCHED, LAUNCHED_FILE = "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_CONFIG_FILE"


def resolve_deepspeed(training: Mapping[str, Any]) -> Any:
    """``training_args.deepspeed`` as a dict or a path: a name is looked up among the files that ship.

    The file that a launcher named is looked up alike. ConfigError where there is none, or DeepSpeed is missing.
    """
    asked = training.get("deepspeed")
    launched = os.environ.get(LAUNCHED, "").lower() in ("1", "true", "yes")
    if asked is None and not launched:
        return None
    require("deepspeed", "deepspeed")
    if os.environ.get(LAUNCHED_FILE):
        os.environ[LAUNCHED_FILE] = str(_file(os.environ[LAUNCHED_FILE], "deepspeed_config_file"))
    if asked is None or isinstance(asked, Mapping):
        return asked
    if launched:
        raise ConfigError(
            f"training_args.deepspeed={asked!r}, and the launcher's file asks for DeepSpeed as well: leave out one"
        )
    return str(_file(str(asked), "training_args.deepspeed"))


def _file(name: str, where: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        shipped = shipped_folder("accelerate_config")
        known = {one.stem: one for one in (shipped / "deepspeed").glob("*.json")} if shipped else {}
        if path.stem not in known or path.suffix not in ("", ".json"):
            raise ConfigError(f"{where}: {name!r} is no file and none that ships; {choices(path.stem, known)}")
        path = known[path.stem]
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{where}: {path} is no JSON ({error})") from error
    return path
