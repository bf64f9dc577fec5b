"""The files of a run: ``run.json``, manifests, scores, results."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mllm.utils.files import atomic_write
from mllm.utils.redact import redact, redact_command

LIBRARIES = ("mllm", "torch", "transformers", "accelerate", "peft", "deepspeed", "mmengine", "tokenizers")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` with secrets redacted, at once or not at all."""
    atomic_write(path, json.dumps(redact(value), indent=2, ensure_ascii=False, default=str) + "\n")


def write_run_file(folder: Path, *, cfg: Mapping[str, Any], world_size: int, seed: int) -> None:
    """``run.json``: versions, commit, command line, data fingerprints, world size."""
    write_json(
        folder / "run.json",
        {
            "command": redact_command(sys.argv),
            "commit": _commit(),
            "python": platform.python_version(),
            "versions": _versions(),
            "world_size": world_size,
            "seed": seed,
            "data": fingerprints(cfg.get("data_args", {})),
        },
    )


def fingerprints(cfg: Any) -> list[dict[str, Any]]:
    """Path, bytes and SHA-256 of every annotation file that a value of the config names (folders are not walked)."""
    found: dict[str, dict[str, Any]] = {}
    for text in _texts(cfg):
        path = Path(os.path.expandvars(text))
        if path.suffix in (".json", ".jsonl", ".p", ".txt", ".csv", ".parquet") and path.is_file():
            content = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    content.update(chunk)
            found[str(path)] = {"path": str(path), "bytes": path.stat().st_size, "sha256": content.hexdigest()}
    return list(found.values())


def write_manifest(
    path: Path, *, processor: Any, dataset_cfg: Any, records: Sequence[Any], evaluators: Any, options: Mapping[str, Any]
) -> None:
    """All that scoring the predictions again needs, besides the predictions themselves."""
    prompts = hashlib.sha256("\0".join(str(record.meta.get("prompt", "")) for record in records).encode())
    write_json(
        path,
        {
            "count": len(records),
            "dataset": dataset_cfg,
            "data": fingerprints(dataset_cfg),
            "prompt_sha256": prompts.hexdigest(),
            "conversation": processor.conversation,
            "evaluators": evaluators,
            "generation": options,
            "versions": _versions(),
        },
    )


def write_scores(path: Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """One line per record: parsed value or failure, statistics."""
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scores))


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for one in value for text in _texts(one)] if isinstance(value, (list, tuple)) else []
