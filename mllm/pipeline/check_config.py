"""``mllm check``: everything that a config names is built but the weights, and every row of its data sets is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from mllm.config.arguments import build_arguments
from mllm.config.options import SECTION_KEYS
from mllm.config.prepare import resolve
from mllm.dataset.browsing import named_sources
from mllm.dataset.mixture import sources_of
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import ConfigError, DataError, choices
from mllm.models.build import build_family
from mllm.pipeline.assemble import batch_of_a_step, choose_best_metric, evaluation_set, needs_validation, train_samples
from mllm.pipeline.check_copy import CleanCopy
from mllm.pipeline.check_report import SourceReport, Verdict, compare, count_errors, judge
from mllm.pipeline.check_rows import CheckedSource, Chunk, RowChecker, checked_chunks

# What depends on the machine that the run will have, not on this one.
MACHINE_ARGUMENTS = (
    *("bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "fsdp", "fsdp_config", "deepspeed"),
    *("torch_compile", "torch_compile_backend", "torch_compile_mode", "use_cpu", "resume_from_checkpoint"),
)
TRIED_ROWS = 8


@dataclass
class CheckReport:
    """The sources of a config with what was found in them, and the verdict."""

    config: str
    sources: list[SourceReport]
    verdict: Verdict
    copies: dict[str, dict[str, Any]]

    @property
    def summary(self) -> str:
        """One sentence."""
        rows, all_rows = (sum(values) for values in zip(*map(_counts, self.sources), strict=True))
        errors, warnings = count_errors(self.sources)
        sampled = "" if rows == all_rows else f" of {all_rows:,}"
        found = f"{_many(errors, 'error')} and {_many(warnings, 'warning')}" if errors or warnings else "no problem"
        where = f"{rows:,}{sampled} rows of {_many(len(self.sources), 'source')}"
        return f"{found} in {where}: {self.verdict.reason}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "config": self.config,
            "passes": self.verdict.passes,
            "summary": self.summary,
            "sources": [source.to_dict() for source in self.sources],
            **({"copies": self.copies} if self.copies else {}),
        }


def check_config(
    argv: Sequence[str],
    *,
    rows: int | None = None,
    decode: bool = False,
    workers: int = 1,
    copy_to: str | None = None,
) -> CheckReport:
    """Check the config and options of ``argv`` (as for ``finetune.py``), and its data.

    ``rows`` of each source are read, spread evenly over it, or all. ``copy_to`` is a new folder for a clean copy.
    ConfigError and DataError as a run raises them, for what concerns no single row.
    """
    resolved = resolve(argv)
    values = resolved.values
    if not values.get("model_args"):
        raise ConfigError(f"{resolved.path}: model_args is not set; expected model_args = dict(type=..., ...)")
    data_args = values.get("data_args") or {}
    _check_keys(values, str(resolved.path))
    arguments = _arguments(values.get("training_args") or {})
    processor = build_family(values["model_args"]).build_processor(
        values.get("conversation") or {}, values.get("generation")
    )
    sets = _sets(data_args, processor, arguments)
    sources = [one for name, samples in sets.items() for one in _sources(name, samples.dataset, rows)]
    copy = CleanCopy(copy_to, sources) if copy_to else None
    checker = RowChecker(sources, processor, decode=decode, copy_to=copy_to)
    reports = _read(checker, workers, copy)
    compare(reports)
    epochs = _epochs(arguments, sets.get("train"))
    verdict = judge(reports, data_args, epochs)
    return CheckReport(str(resolved.path), reports, verdict, copy.configs() if copy else {})


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _counts(source: SourceReport) -> tuple[int, int]:
    return source.total.rows, source.all_rows


def _check_keys(values: Mapping[str, Any], path: str) -> None:
    for section, known in SECTION_KEYS.items():
        for key in values.get(section) or {}:
            if key not in known and section != "custom_imports":
                raise ConfigError(f"{path}: {section} has no {key!r}; {choices(str(key), known)}")


def _arguments(values: Mapping[str, Any]) -> Any:
    """The training arguments, built so that what they contradict in is found on any machine."""
    kept = {name: value for name, value in values.items() if name not in MACHINE_ARGUMENTS}
    return build_arguments({**kept, "output_dir": values.get("output_dir") or "work_dirs", "use_cpu": True})


def _sets(data_args: Mapping[str, Any], processor: Any, arguments: Any) -> dict[str, SingleImageConvDataset]:
    """Every set of ``data_args`` by name, its data set and evaluators built; ConfigError if the run needs another."""
    budget = data_args.get("error_budget")
    if budget is not None and type(budget) is not int:
        raise ConfigError(f"data_args.error_budget={budget!r}; expected a whole number")
    sets: dict[str, SingleImageConvDataset] = {}
    if data_args.get("train") or arguments.do_train:
        sets["train"] = train_samples(data_args, processor, arguments.seed)
    needed = {"validation": needs_validation(arguments), "test": arguments.do_predict}
    named = {name: data_args.get(name) for name in needed if data_args.get(name) or needed[name]}
    named |= {f"multitest.{name}": cfg for name, cfg in (data_args.get("multitest") or {}).items()}
    built = {name: evaluation_set(name, cfg, processor, f"data_args.{name}") for name, cfg in named.items()}
    choose_best_metric(arguments, built.get("validation"))
    sets |= {name: one.dataset for name, one in built.items()}
    if not sets:
        raise ConfigError("data_args holds no data set: nothing to check; give train, validation, test or multitest")
    for samples in sets.values():
        _try(samples)
    return sets


def _try(samples: SingleImageConvDataset) -> None:
    """DataError if a whole sample, pixels included, does not fit the model."""
    for index in range(min(TRIED_ROWS, len(samples))):
        try:
            samples.sample(index)
            return
        except DataError as error:
            if getattr(error.__cause__, "kind", "") == "canvas":
                raise


def _sources(set_name: str, dataset: Any, rows: int | None) -> Iterator[CheckedSource]:
    for name, source in named_sources(list(sources_of(dataset))).items():
        chosen: Sequence[int] = range(source.rows) if source.chosen is None else source.chosen
        if rows is not None and rows < len(chosen):
            chosen = [chosen[number * len(chosen) // rows] for number in range(rows)]
        yield CheckedSource(set_name, name, source, chosen)


def _read(checker: RowChecker, workers: int, copy: CleanCopy | None) -> list[SourceReport]:
    reports = [SourceReport(one, Chunk(number)) for number, one in enumerate(checker.sources)]
    total = sum(len(one.indices) for one in checker.sources)
    bar = tqdm(total=total, unit="row", disable=None, desc="check", leave=False)
    with copy or nullcontext(), bar, closing(checked_chunks(checker, workers)) as chunks:
        for chunk in chunks:
            if copy:
                copy.add(chunk)
            reports[chunk.source].add(chunk)
            bar.update(chunk.rows)
    return reports


def _epochs(arguments: Any, train: SingleImageConvDataset | None) -> float:
    """Epochs of the run as one process counts them."""
    if arguments.max_steps > 0 and train is not None:
        return arguments.max_steps * batch_of_a_step(arguments) / len(train)
    return arguments.num_train_epochs
