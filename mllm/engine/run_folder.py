"""The files of a run: ``run.json``, manifests, scores, results."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mllm.evaluation.base import Evaluation
from mllm.utils.files import atomic_write, read_json
from mllm.utils.redact import redact, redact_command
from mllm.utils.storage import local_file

LIBRARIES = ("mllm", "torch", "transformers", "accelerate", "peft", "deepspeed", "mmengine", "tokenizers")
MANIFEST_FORMAT = 1


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` with secrets redacted, at once or not at all."""
    atomic_write(path, json.dumps(redact(value), indent=2, ensure_ascii=False, default=str) + "\n")


def write_run_file(folder: Path, *, data: Mapping[str, Any], args: Any) -> None:
    """``run.json``: versions, commit, command line, data fingerprints by set, world size and samples of a step."""
    write_json(
        folder / "run.json",
        {
            "command": redact_command(sys.argv),
            "commit": _commit(),
            "python": platform.python_version(),
            "versions": versions(),
            "world_size": args.world_size,
            "batch_of_a_step": args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps,
            "seed": args.seed,
            "data": dict(data),
        },
    )


def fingerprint(dataset: Any) -> dict[str, Any]:
    """Rows of a data set, and path, bytes and SHA-256 of the annotation files that it names in ``files``."""
    return {"rows": len(dataset), "files": [file_fingerprint(path) for path in getattr(dataset, "files", [])]}


def file_fingerprint(path: str | Path) -> dict[str, Any]:
    """Path, bytes and SHA-256 of a file; a remote one is copied first."""
    digest, size = hashlib.sha256(), 0
    with open(local_file(path), "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return {"path": str(path), "bytes": size, "sha256": digest.hexdigest()}


def write_manifest(
    path: Path,
    *,
    processor: Any,
    dataset_cfg: Any,
    data: Any,
    records: Sequence[Any],
    predictions: Path,
    made_of: Mapping[str, str],
    evaluators: Any,
    modules: Sequence[str],
    options: Mapping[str, Any],
) -> None:
    """All that scoring the predictions again needs, besides the predictions themselves.

    ``data`` is the data set's fingerprint, ``made_of`` what ``mllm.engine.made_of`` gives. ``evaluators`` are their
    configs, ``modules`` where their classes stand: one from outside has to be imported again.
    """
    write_json(
        path,
        {
            "format": MANIFEST_FORMAT,
            "count": len(records),
            "dataset": dataset_cfg,
            "data": data,
            "predictions_sha256": file_fingerprint(predictions)["sha256"],
            "made_of": made_of,
            "prompt_sha256": prompt_hash(records),
            "conversation": processor.conversation,
            "formatter": processor.formatter.to_config(),
            "evaluators": evaluators,
            "evaluator_modules": list(modules),
            "generation": options,
            "versions": versions(),
        },
    )


def is_complete(predictions: Path, manifest: Path, made_of: Mapping[str, str]) -> bool:
    """Whether ``predictions`` is the very file that ``manifest`` was written for, and was made of the same."""
    if not (predictions.is_file() and manifest.is_file()):
        return False
    known = read_json(manifest)
    return known.get("made_of") == made_of and known["predictions_sha256"] == file_fingerprint(predictions)["sha256"]


def prompt_hash(records: Sequence[Any]) -> str:
    """SHA-256 of the prompts in the order of ``records``."""
    return hashlib.sha256("\0".join(str(record.meta.get("prompt", "")) for record in records).encode()).hexdigest()


def write_evaluations(path: Path, evaluations: Sequence[Evaluation], evaluators: Sequence[Any], count: int) -> None:
    """The nested outcome of one set, an entry an evaluator; Hugging Face's results files hold flat numbers alone."""
    parts = [{"evaluator": cfg, **one.summary()} for cfg, one in zip(evaluators, evaluations, strict=True)]
    write_json(path, {"count": count, "evaluators": parts})


def write_results(folder: Path, name: str, metrics: Mapping[str, float]) -> None:
    """Write ``NAME_results.json`` and put the numbers into ``all_results.json``, each file whole at every moment."""
    everything = folder / "all_results.json"
    known = read_json(everything) if everything.is_file() else {}
    for path, numbers in ((folder / f"{name}_results.json", metrics), (everything, {**known, **metrics})):
        atomic_write(path, json.dumps(numbers, indent=4, sort_keys=True))


def write_scores(path: Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """One line per record: parsed value or failure, statistics."""
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scores))


def versions() -> dict[str, str]:
    """The installed versions of the libraries that a result depends on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
