"""What the benchmarks share: rounds that take turns, medians with their spread, a table and a CSV file."""

from __future__ import annotations

import csv
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def interleaved(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in every round; they take turns and change their order from round to round."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
            # What lies in memory already costs no contender garbage collection.
            gc.collect()
            gc.freeze()
            start = time.perf_counter()
            contenders[name]()
            taken[name].append(time.perf_counter() - start)
            gc.unfreeze()
    return taken


def lines_of(measure: str, taken: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A line a contender: median, least and most of its rounds in seconds."""
    lines = []
    for name, values in taken.items():
        spread = {"median_s": statistics.median(values), "least_s": min(values), "most_s": max(values)}
        numbers = {key: f"{value:.4g}" for key, value in spread.items()}
        lines.append({"measure": measure, "contender": name, "rounds": len(values), **numbers})
    return lines


def show(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print the lines of one measure; each contender beside the first, which is ours."""
    for line in lines:
        times = float(line["median_s"]) / float(lines[0]["median_s"])
        spread = f"{line['median_s']} s ({line['least_s']} – {line['most_s']})"
        print(f"{line['measure']:<34}{line['contender']:<34}{spread:>32}{times:>9.2f} x", flush=True)


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """All lines, one a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(f"wrote {path}")
