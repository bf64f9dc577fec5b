"""Opening annotation files: the offset index (``open_rows``) beside ``json.load`` and a list, from 10³ to 10⁶ rows.

Run from the repository root: ``python tools/benchmark/rows.py [--rows 1000,10000,100000,1000000]``. README.md beside
this file says what is measured and how.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LAYOUTS = {"jsonl": "lines", "json": "array"}
READERS = ("index", "list")
WORKERS, TOUCHED, COMPARED = 2, 100_000, 2_000
MEASURES = {
    "first_open_s": "first open (s)",
    "later_open_s": "later open (s)",
    "open_rss_mib": "memory of the process (MiB)",
    "worker_rss_mib": "memory growth of a worker (MiB)",
    "worker_private_mib": "private memory of a worker (MiB)",
    "read_us_per_row": "reading a row (µs)",
}


def write_file(path: Path, rows: int) -> None:
    """REC lines of some 200 bytes, as JSON lines or as an array with a row a line; always the same bytes."""
    rng = random.Random(0)
    words = ["the", "left", "man", "in", "a", "red", "shirt", "behind", "table", "second", "dog", "from", "right"]
    array = path.suffix == ".json"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("[\n" if array else "")
        for number in range(rows):
            row = {
                "img_path": f"COCO_train2014_{number % 82783:012d}.jpg",
                "expression": " ".join(rng.choices(words, k=rng.randint(3, 12))),
                "bbox": [round(rng.uniform(0, 640), 2) for _ in range(4)],
                "dataset_name": "refcoco",
                "height": 480,
                "width": 640,
            }
            stream.write(json.dumps(row) + (",\n" if array and number + 1 < rows else "\n"))
        stream.write("]\n" if array else "")


def open_file(reader: str, path: Path) -> Sequence[Any]:
    """The rows through one of ``READERS``."""
    if reader == "index":
        from mllm.dataset.rows import open_rows

        return open_rows(path)
    with path.open(encoding="utf-8") as stream:
        return json.load(stream) if path.suffix == ".json" else [json.loads(line) for line in stream]


def memory(field: str) -> float:
    """A field of this process' memory in MiB: ``Rss``, or ``Private`` (what no other process shares)."""
    total = 0
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        total += int(line.split()[1]) if line.startswith(field) else 0
    return total / 1024


def check_equal(path: Path, rows: int) -> None:
    """Stop unless both readers see the same rows: their number, and some at both ends and in between."""
    ours, theirs = open_file("index", path), open_file("list", path)
    positions = {0, 1, rows - 1, *random.Random(1).sample(range(rows), min(rows, COMPARED))}
    if not len(ours) == len(theirs) == rows or any(dict(ours[n]) != theirs[n] for n in positions):
        raise SystemExit(f"{path}: the readers differ; nothing was measured")


def measure_here(reader: str, path: Path) -> dict[str, float]:
    """Open in this fresh process, then let forked workers read; memory is what has been added."""
    import mllm.dataset.rows  # noqa: F401 – importing is no part of opening

    before, start = memory("Rss"), time.perf_counter()
    rows = open_file(reader, path)
    seconds = time.perf_counter() - start
    grown = memory("Rss") - before
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(rows, seed, queue)) for seed in range(WORKERS)]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    means = {key: statistics.mean(one[key] for one in found) for key in found[0]}
    return {"open_s": seconds, "open_rss_mib": grown, **means}


def _work(rows: Sequence[Any], seed: int, queue: Any) -> None:
    """What a worker of a data loader does: read rows in any order and use them."""
    count = min(TOUCHED, len(rows))
    positions = random.Random(seed).choices(range(len(rows)), k=count)
    rss, private, start = memory("Rss"), memory("Private"), time.perf_counter()
    characters = sum(len(rows[position]["expression"]) for position in positions)
    seconds = time.perf_counter() - start
    queue.put(
        {
            "worker_rss_mib": memory("Rss") - rss,
            "worker_private_mib": memory("Private") - private,
            "read_us_per_row": seconds / count * 1e6 if characters else 0.0,
        }
    )


def measure(reader: str, path: Path, cache: Path) -> dict[str, float]:
    """``measure_here`` in a process of its own."""
    words = [sys.executable, __file__, "--one", reader, str(path)]
    done = subprocess.run(
        words, env={**os.environ, "MLLM_CACHE": str(cache)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def round_of(reader: str, path: Path, folder: Path) -> dict[str, float]:
    """One round: a first open without any index kept, then a later one; the later one's memory is kept."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        first = measure(reader, path, Path(cache)).pop("open_s")
        later = measure(reader, path, Path(cache))
    return {"first_open_s": first, "later_open_s": later.pop("open_s"), **later}


def run(sizes: Sequence[int], rounds: int, peer_rows: int, folder: Path) -> list[dict[str, Any]]:
    """A line a size, layout, reader and measure: median, least and most of the rounds."""
    results = []
    for rows in sizes:
        readers = [reader for reader in READERS if reader == "index" or rows <= peer_rows]
        for suffix, layout in LAYOUTS.items():
            path = folder / f"rows_{rows}.{suffix}"
            write_file(path, rows)
            if rows <= peer_rows:
                check_equal(path, rows)
            taken: dict[str, list[dict[str, float]]] = {reader: [] for reader in readers}
            for number in range(rounds):
                for reader in readers if number % 2 == 0 else reversed(readers):
                    taken[reader].append(round_of(reader, path, folder))
            for reader in readers:
                results += _lines(taken[reader], rows=rows, bytes=path.stat().st_size, layout=layout, reader=reader)
            path.unlink()
            _print(results, rows, layout)
    return results


def _lines(rounds: Sequence[dict[str, float]], **shared: Any) -> list[dict[str, Any]]:
    lines = []
    for name in MEASURES:
        values = [one[name] for one in rounds]
        spread = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        lines.append({**shared, "measure": name, "rounds": len(values), **{k: f"{v:.6g}" for k, v in spread.items()}})
    return lines


def _print(results: Sequence[dict[str, Any]], rows: int, layout: str) -> None:
    here = {(one["reader"], one["measure"]): one for one in results if (one["rows"], one["layout"]) == (rows, layout)}
    print(f"\n{f'{rows:,} rows, {layout}':<38}{'index':>28}{'list':>28}{'list / index':>16}")
    for name, title in MEASURES.items():
        ours, theirs = here["index", name], here.get(("list", name))
        line = f"  {title:<36}{_cell(ours):>28}"
        if theirs:
            own = float(ours["median"])
            line += f"{_cell(theirs):>28}" + (f"{float(theirs['median']) / own:>16.3g}" if own > 0 else f"{'–':>16}")
        print(line)


def _cell(line: dict[str, Any]) -> str:
    return f"{float(line['median']):.3g} ({float(line['least']):.3g} – {float(line['most']):.3g})"


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Time and memory against the number of rows, one curve a reader and layout, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    colours, lines_of = {"index": "C0", "list": "C1"}, {"lines": "-o", "array": "--s"}
    styles = {(reader, layout): colours[reader] + lines_of[layout] for reader in READERS for layout in lines_of}
    for axis, (name, title) in zip(axes.flat, MEASURES.items(), strict=True):
        for (reader, layout), style in styles.items():
            lines = [one for one in results if (one["reader"], one["layout"], one["measure"]) == (reader, layout, name)]
            middle, least, most = ([_drawable(float(one[key])) for one in lines] for key in ("median", "least", "most"))
            spread = [
                [m - low for m, low in zip(middle, least, strict=True)],
                [high - m for m, high in zip(middle, most, strict=True)],
            ]
            axis.errorbar([one["rows"] for one in lines], middle, spread, fmt=style, label=f"{reader}, {layout}")
        axis.set(xscale="log", yscale="log", xlabel="rows", title=title)
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(path, dpi=110)


def _drawable(value: float) -> float:
    """A growth of nothing, or below it, cannot stand on a logarithmic axis."""
    return value if value > 0 else 1e-3


def save(results: Sequence[dict[str, Any]], folder: Path) -> None:
    """``rows.csv`` and, where matplotlib is installed, ``rows.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(results[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(results)
    print(f"\nwrote {folder / 'rows.csv'}")
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
        return
    draw(results, folder / "rows.png")
    print(f"wrote {folder / 'rows.png'}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000,10000,100000,1000000", help="sizes, joined by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rows", type=int, default=1_000_000, help="up to which size the list is measured too")
    parser.add_argument("--folder", help="where the files are made; they are removed again (default: temporary)")
    parser.add_argument("--out", default="docs/benchmark", help="folder of rows.csv and rows.png")
    parser.add_argument("--one", nargs=2, metavar=("READER", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_here(arguments.one[0], Path(arguments.one[1]))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sizes = [int(size) for size in arguments.rows.split(",")]
        save(run(sizes, arguments.rounds, arguments.peer_rows, Path(folder)), Path(arguments.out))


if __name__ == "__main__":
    main()
