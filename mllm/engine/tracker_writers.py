"""What each tracker is told: a run begins with its config, logs numbers by step, may hand over files, ends."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mllm.utils.imports import require
from mllm.utils.logging import get_logger, log_on_main
from mllm.utils.reachable import is_reachable

logger = get_logger(__name__)


@dataclass(frozen=True)
class Described:
    """A run as trackers know it; ``config`` holds plain values without secrets."""

    name: str
    project: str
    group: str | None
    folder: Path
    config: Mapping[str, Any]
    is_resumed: bool = False
    space: str | None = None


class Writer:
    """One tracker; ``project_from`` is the variable of the environment that names its project."""

    name = ""
    project_from = ""

    def start(self, run: Described) -> None:
        """Begin the run and hand over its config."""
        raise NotImplementedError

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers by tag, ``train/loss``."""
        raise NotImplementedError

    def saved(self, checkpoint: Path) -> None:
        """Hand over a checkpoint, where the user has asked for it."""

    def end(self, failed: bool) -> None:
        """Write what is left."""


class TensorBoardWriter(Writer):
    """Event files below ``<output_dir>/runs``, or where TENSORBOARD_LOGGING_DIR says."""

    name = "tensorboard"

    def start(self, run: Described) -> None:
        """Open the file; the config is a text in it."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            from tensorboardX import SummaryWriter
        moment = datetime.now().strftime("%b%d_%H-%M-%S")
        folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or run.folder / "runs" / f"{moment}_{socket.gethostname()}"
        self.writer = SummaryWriter(log_dir=str(folder))
        text = json.dumps(run.config, indent=2, ensure_ascii=False)
        self.writer.add_text("run", f"{run.name}{f', group {run.group}' if run.group else ''}")
        self.writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """One scalar each."""
        for tag, value in numbers.items():
            self.writer.add_scalar(tag, value, step)
        self.writer.flush()

    def end(self, failed: bool) -> None:
        """Close the file."""
        self.writer.close()


class TrackioWriter(Writer):
    """Trackio's local database (TRACKIO_DIR); a Space or a server only where the user names one."""

    name = "trackio"
    project_from = "TRACKIO_PROJECT"

    def start(self, run: Described) -> None:
        """``trackio.init``; a resumed run goes on with the run of its name."""
        space = run.space or os.environ.get("TRACKIO_SPACE_ID")
        if space and not is_reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co"):
            log_on_main(logger, "trackio: no network to the Space %r; the run is kept on this machine", space)
            os.environ.pop("TRACKIO_SPACE_ID", None)
            space = None
        self.trackio = require("trackio", "trackio")
        self.trackio.init(
            project=run.project,
            name=run.name,
            group=run.group,
            space_id=space,
            config=dict(run.config),
            resume="allow" if run.is_resumed else "never",
            embed=False,
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""
        self.trackio.log(dict(numbers), step=step)

    def end(self, failed: bool) -> None:
        """Write what waits."""
        self.trackio.finish()
