"""Weights & Biases: online where there is a key and a network, else offline, decided without a question."""

from __future__ import annotations

import netrc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mllm.engine.tracker_writers import Described, Writer
from mllm.utils.imports import require
from mllm.utils.logging import get_logger, log_on_main
from mllm.utils.reachable import is_reachable
from mllm.utils.redact import redact_command

logger = get_logger(__name__)
# Entries of a netrc file that older versions of wandb wrote for its public server.
_PUBLIC = "api.wandb.ai"
_NO_SERVER = ("offline", "dryrun", "disabled")


class WandbWriter(Writer):
    """Weights & Biases below ``<output_dir>/wandb``; offline without a key or a network, and no question is asked."""

    name = "wandb"
    project_from = "WANDB_PROJECT"

    def start(self, run: Described) -> None:
        """``wandb.init``; what goes wrong online is tried again offline."""
        # The library would wait 90 s for a server that does not answer, and without end for the last upload.
        os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", "300")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self.wandb = require("wandb", "wandb")
        settings = self.wandb.setup().settings
        why = reason_for_offline(settings.mode, settings.base_url, settings.api_key, os.environ)
        if why is None:
            try:
                self._init(run, settings.mode)
                return
            except (self.wandb.errors.Error, OSError, ValueError) as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())
        folder = Path(os.environ.get("WANDB_DIR") or run.folder) / "wandb"
        log_on_main(logger, "wandb: offline (%.300s); 'wandb sync %s/offline-run-*' uploads it later", why, folder)
        self._init(run, "offline")

    def _init(self, run: Described, mode: str) -> None:
        with _command_without_secrets():
            self.run = self.wandb.init(
                project=run.project,
                name=os.environ.get("WANDB_NAME") or run.name,
                group=run.group,
                dir=os.environ.get("WANDB_DIR") or str(run.folder),
                config=dict(run.config),
                mode=mode,
            )
        self.run.define_metric("train/global_step")
        self.run.define_metric("*", step_metric="train/global_step", step_sync=True)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """The step is a number beside the others: a resumed run may go back."""
        self.run.log({**numbers, "train/global_step": step})

    def saved(self, checkpoint: Path) -> None:
        """An artifact, where WANDB_LOG_MODEL is ``checkpoint``."""
        if os.environ.get("WANDB_LOG_MODEL") == "checkpoint":
            artifact = self.wandb.Artifact(f"checkpoint-{self.run.id}", type="model")
            artifact.add_dir(str(checkpoint))
            self.run.log_artifact(artifact, aliases=[checkpoint.name])

    def end(self, failed: bool) -> None:
        """Mark the run as done or failed; waits five minutes at most for the last upload."""
        self.run.finish(exit_code=int(failed))


@contextmanager
def _command_without_secrets() -> Iterator[None]:
    """A tracker may keep the command line that started it."""
    words = sys.argv
    sys.argv = redact_command(words)
    try:
        yield
    finally:
        sys.argv = words


def reason_for_offline(
    mode: str, base_url: str, api_key: str | None, environment: Mapping[str, str], seconds: float = 3.0
) -> str | None:
    """Why a run of ``mode`` has to be offline; None where it can go on as the user wants it.

    ``api_key`` is one that wandb's own settings hold. The server is asked nothing, it is only connected to.
    """
    if mode in _NO_SERVER:
        return None
    if not (api_key or _has_credentials(base_url, environment)):
        return "no API key; WANDB_API_KEY or 'wandb login' gives one"
    if not is_reachable(base_url, seconds):
        return f"{urlsplit(base_url).netloc or base_url} cannot be reached"
    return None


def _has_credentials(base_url: str, environment: Mapping[str, str]) -> bool:
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    home = Path(environment.get("HOME") or Path.home())
    named = environment.get("NETRC")
    files = [Path(named).expanduser()] if named else [home / ".netrc", home / "_netrc"]
    for path in files:
        try:
            entries = netrc.netrc(path).hosts
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
        if urlsplit(base_url).netloc in entries or _PUBLIC in entries:
            return True
    return False
