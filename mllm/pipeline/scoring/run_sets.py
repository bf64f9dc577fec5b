"""The sets of a run folder, scored from manifests and predictions alone: ``config.py`` is never run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm.engine.records import in_order, read_records
from mllm.engine.run_folder import MANIFEST_FORMAT, prompt_hash
from mllm.errors import ConfigError, DataError, choices
from mllm.evaluation.base import Evaluator
from mllm.grounding import build_formatter
from mllm.pipeline.scoring.scored import ScoredSet, score_set
from mllm.registry import EVALUATORS
from mllm.structures import Record
from mllm.utils.files import read_json

MANIFEST = "_manifest.json"
ALIASES = {"validation": "eval"}


def sets_of(folder: Path, names: Sequence[str] = ()) -> list[str]:
    """The sets of a run folder (eval, test, multitest_NAME), or those asked for; NAME alone will do for the last."""
    if not folder.is_dir():
        raise DataError(f"run folder {str(folder)!r} does not exist")
    found = sorted(path.name.removesuffix(MANIFEST) for path in folder.glob(f"*{MANIFEST}"))
    if not found:
        raise DataError(
            f"{folder}: no *{MANIFEST} here; expected the output_dir of a run that evaluated or predicted, "
            "files of others are scored with --evaluator and --predictions"
        )
    chosen = []
    for name in names:
        tried = [one for one in (name, ALIASES.get(name), f"multitest_{name}") if one in found]
        if not tried:
            raise ConfigError(f"{folder} has no set {name!r}; {choices(name, found)}")
        chosen += tried[:1]
    return list(dict.fromkeys(chosen)) or found


def score_run_set(folder: Path, name: str, *, resamples: int, allow_partial: bool = False) -> ScoredSet:
    """Score one set of a run folder as the run did; DataError unless every index is there exactly once."""
    path, manifest = folder / f"{name}{MANIFEST}", _manifest(folder / f"{name}{MANIFEST}")
    evaluators = build_evaluators(manifest, path)
    for evaluator in evaluators:
        evaluator.start()
    records = _records(folder / f"{name}_predictions.jsonl", manifest, allow_partial)
    return score_set(
        name,
        records,
        evaluators,
        manifest["evaluators"],
        expected=manifest["count"],
        data=manifest.get("data") or {},
        resamples=resamples,
    )


def run_records(folder: Path, name: str, *, allow_partial: bool = False) -> list[Record]:
    """The records of one set of a run folder; DataError unless every index is there exactly once."""
    return _records(folder / f"{name}_predictions.jsonl", _manifest(folder / f"{name}{MANIFEST}"), allow_partial)


def build_evaluators(manifest: Mapping[str, Any], path: Path) -> list[Evaluator]:
    """The evaluators that a manifest names, with the run's formatter; nothing is imported on its word."""
    modules = manifest.get("evaluator_modules") or []
    built = []
    for number, cfg in enumerate(manifest["evaluators"]):
        if not isinstance(cfg, Mapping) or not isinstance(cfg.get("type"), str):
            raise DataError(f"{path}: evaluators[{number}]: expected an object with 'type', got {cfg!r:.60}")
        _check_known(cfg["type"], modules[number] if number < len(modules) else "", path)
        evaluator = EVALUATORS.build(cfg)
        evaluator.formatter = build_formatter(_formatter(manifest, path))
        built.append(evaluator)
    return built


def _manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    expected = {"count": int, "evaluators": list}
    for key, kind in expected.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind):
            raise DataError(f"{path}: no manifest of a run: {key!r} is missing; predict the set again")
    if manifest.get("format", 0) > MANIFEST_FORMAT:
        raise DataError(
            f"{path}: format {manifest['format']}, written by a newer mllm; this one reads {MANIFEST_FORMAT}"
        )
    return manifest


def _formatter(manifest: Mapping[str, Any], path: Path) -> Any:
    # Manifests without a format of their own name it among the conversation's parts.
    found = manifest.get("formatter") or (manifest.get("conversation") or {}).get("formatter")
    if not found:
        raise DataError(f"{path}: it names no formatter, so coordinates in texts cannot be read; predict the set again")
    return found


def _check_known(name: str, module: str, path: Path) -> None:
    home = name.rpartition(".")[0]
    if name in EVALUATORS.names() or home in sys.modules:
        return
    home = home or module
    if home and not home.startswith("mllm."):
        raise ConfigError(f"{path}: {name!r} stands in the module {home!r}; add --import {home} to score with it")
    raise ConfigError(f"{path}: {name!r} is not registered in EVALUATORS; {choices(name, EVALUATORS.names())}")


def _records(path: Path, manifest: Mapping[str, Any], allow_partial: bool) -> list[Record]:
    advice = "; predict again, or score what is there as 'k of N' with --allow-partial"
    records, count = read_records(path), manifest["count"]
    records = in_order(records, count, str(path), allow_partial=allow_partial, advice=advice)
    whole = len(records) == count
    if whole and "prompt_sha256" in manifest and prompt_hash(records) != manifest["prompt_sha256"]:
        raise DataError(f"{path}: the prompts are not those of its manifest; the two files are of different runs")
    return records
