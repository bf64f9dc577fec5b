"""MLflow: a server where one is named and answers, else a database beside the run."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllm.engine.tracker_writers import Described, Writer
from mllm.utils.imports import require
from mllm.utils.logging import get_logger, log_on_main
from mllm.utils.reachable import is_reachable

logger = get_logger(__name__)


class MlflowWriter(Writer):
    """MLflow where MLFLOW_TRACKING_URI says, else in ``<output_dir>/mlflow.db``; a group's lies beside its folders."""

    name = "mlflow"
    project_from = "MLFLOW_EXPERIMENT_NAME"

    def start(self, run: Described) -> None:
        """Begin a run of the experiment; what a server does not take is kept on this machine."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Of a server that does not answer: the library would wait for 2 minutes, 8 times.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if uri.startswith("file:") or (uri and ":" not in uri):  # mlflow 3 wants to be told twice
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self.mlflow = require("mlflow", "mlflow")
        local = f"sqlite:///{(run.folder.parent if run.group else run.folder).absolute() / 'mlflow.db'}"
        if uri.startswith(("http://", "https://")):
            try:
                if not is_reachable(uri):
                    raise ConnectionError(f"{uri} cannot be reached")
                self._begin(run, uri)
                return
            except (self.mlflow.exceptions.MlflowException, OSError) as error:
                log_on_main(logger, "mlflow: %.300s; the run is kept in %s", " ".join(str(error).split()), local)
                uri = local
        self._begin(run, uri or local)

    def _begin(self, run: Described, uri: str) -> None:
        self.is_remote = uri.startswith(("http://", "https://"))
        self.mlflow.set_tracking_uri(uri)
        self._set_experiment(
            run.project, Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        )
        tags = {"group": run.group} if run.group else {}
        self.mlflow.start_run(run_name=run.name, tags={**tags, "output_dir": str(run.folder)})
        self.mlflow.log_dict(dict(run.config), "config.json")
        if os.environ.get("MLFLOW_RUN_ID"):  # a run that goes on: its parameters cannot be changed
            return
        limit = self.mlflow.utils.validation.MAX_PARAM_VAL_LENGTH
        params = [(key, text) for key, text in _flat(run.config) if len(text) <= limit]
        for start in range(0, len(params), 100):  # a server takes 100 at once
            self.mlflow.log_params(dict(params[start : start + 100]))

    def _set_experiment(self, name: str, database: Path | None) -> None:
        if database is None:
            self.mlflow.set_experiment(name)
            return
        with _locked(database.with_name(f".{database.name}.lock")):
            if self.mlflow.get_experiment_by_name(name) is None:  # files would lie in the working folder
                artifacts = (database.parent / "mlartifacts").absolute().as_uri()
                self.mlflow.create_experiment(name, artifact_location=artifacts)
            self.mlflow.set_experiment(name)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers of one step; a server is told them in the background."""
        named = {re.sub(r"[^\w\-. :/]", "_", tag): value for tag, value in numbers.items()}
        self.mlflow.log_metrics(named, step=step, synchronous=not self.is_remote)

    def saved(self, checkpoint: Path) -> None:
        """The checkpoint's files, where HF_MLFLOW_LOG_ARTIFACTS is true."""
        if os.environ.get("HF_MLFLOW_LOG_ARTIFACTS", "").lower() in ("1", "true", "yes", "on"):
            self.mlflow.log_artifacts(str(checkpoint), checkpoint.name)

    def end(self, failed: bool) -> None:
        """Mark the run as done or failed."""
        if self.is_remote:
            self.mlflow.flush_async_logging()
        self.mlflow.end_run("FAILED" if failed else "FINISHED")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """``data_args.train.type`` and its value as text."""
    for key, value in values.items():
        name = re.sub(r"[^\w\-. :/]", "_", f"{prefix}{key}")
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, str(value)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Runs of a sweep that start at once must not all lay out the same database."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
