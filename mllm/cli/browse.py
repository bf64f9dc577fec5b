"""Look at the samples of a config in one HTML file: the model's image, its boxes, the prompt, what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.cli.parsing import Parser
from mllm.errors import ConfigError, choices
from mllm.utils.files import atomic_write
from mllm.utils.program import UsageError

EVALUATED = ("validation", "test")
DETAILS = """

Takes CONFIG, --cfg-options and flags as finetune.py does. No weights are loaded. Boxes and points are those that the
formatter reads out of the rendered text. A row that fails is shown with its error. Options:"""


def main(argv: list[str]) -> int:
    """Write the page and print where it lies, and what it shows."""
    parser = Parser("browse", __doc__ + DETAILS)
    parser.add_argument("--set", default="train", help="train (default), validation, test or a name of multitest")
    parser.add_argument("--count", type=int, default=24, help="how many rows (24)")
    parser.add_argument("--start", type=int, help="rows from this index on; else as many of each source, spread")
    parser.add_argument("--out", default="browse.html", help="the file to write (browse.html)")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.count < 1 or (arguments.start or 0) < 0:
        given = f"--count {arguments.count}, --start {arguments.start}"
        raise UsageError(f"{given}: expected at least 1 row, and a start of at least 0")
    if Path(arguments.out).is_dir():
        raise ConfigError(f"--out {arguments.out!r} cannot be written: it is a folder; name a file in it")
    page, summary = _browse(rest, arguments)
    try:
        atomic_write(Path(arguments.out), page)
    except OSError as error:
        raise ConfigError(f"--out {arguments.out!r} cannot be written: {error.strerror}; name a file") from error
    print(f"{arguments.out}: {summary}")
    return 0


def _browse(argv: list[str], arguments: Any) -> tuple[bytes, str]:
    from mllm.cli._browse_page import browse_page
    from mllm.config.prepare import resolve
    from mllm.dataset.browsing import Browser

    resolved = resolve(argv)
    samples = build_samples(resolved.config, arguments.set)
    if (arguments.start or 0) >= len(samples):
        raise ConfigError(f"--start {arguments.start}: {arguments.set} has {len(samples)} samples, numbered from 0")
    browser = Browser(samples)
    rows = [browser.show(index) for index in browser.choose(arguments.count, arguments.start)]
    processor, faulty = samples.processor, sum(bool(shown.problems) for shown in rows)
    summary = f"{len(rows)} of {len(samples)} samples of {arguments.set}, {faulty} with a problem"
    parts = (processor.template.name, type(processor.formatter).__name__, f"max_length {processor.max_length}")
    note = f"{summary} · {' · '.join(parts)}"
    title = f"{resolved.path.stem}: {arguments.set}"
    return browse_page(title, note, rows, browser.sources, generation=samples.mode == "generate"), summary


def build_samples(cfg: Any, name: str) -> Any:
    """The samples of a set of ``data_args``: with labels for train, prompts that ask for the answer for the others."""
    from mllm.config.prepare import argument_fields
    from mllm.dataset.single_image_conversation import SingleImageConvDataset
    from mllm.models.build import build_family
    from mllm.registry import DATASETS

    known = data_sets(cfg.get("data_args") or {})
    if name not in known:
        raise ConfigError(f"--set {name!r}: data_args has no such set; {choices(name, known)}")
    if "model_args" not in cfg:
        raise ConfigError("the config has no model_args; what is rendered depends on the model's tokenizer")
    processor = build_family(cfg["model_args"]).build_processor(cfg.get("conversation", {}), cfg.get("generation"))
    seed = cfg.get("training_args", {}).get("seed", argument_fields()["seed"].default)
    mode = "train" if name == "train" else "generate"
    return SingleImageConvDataset(DATASETS.build(known[name]), processor, mode=mode, seed=seed, name=name)


def data_sets(data_args: Mapping[str, Any]) -> dict[str, Any]:
    """Name → config of every data set that ``data_args`` holds."""
    named = {name: data_args.get(name) for name in EVALUATED} | dict(data_args.get("multitest") or {})
    found = {name: one["dataset"] for name, one in named.items() if one and one.get("dataset")}
    return ({"train": data_args["train"]} if data_args.get("train") else {}) | found
