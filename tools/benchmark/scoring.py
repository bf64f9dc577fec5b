"""Scoring saved predictions again: 57,457 referring expressions and their bootstrap intervals, 5,000 captions.

Run from the repository root: ``python tools/benchmark/scoring.py --expressions FOLDER``. README.md beside this file
says what is measured and how.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import interleaved, lines_of, show, write_csv

from mllm.evaluation.base import Evaluation, Evaluator
from mllm.evaluation.captions import CaptionEvaluator
from mllm.evaluation.draws import bootstrap
from mllm.evaluation.rec import RECEvaluator
from mllm.grounding.formatter import PlainFormatter
from mllm.grounding.geometry import box_iou, xywh_to_xyxy
from mllm.structures import Frame, Record

CANVAS, DRAWS, FEW = 336, 1000, 10


class ReducedREC(RECEvaluator):
    """The same numbers with a ``reduce`` of its own, which is then called on the rows of every draw."""

    def reduce(self, statistics: Sequence[dict[str, Any]]) -> dict[str, float]:
        """As the base class."""
        return super().reduce(statistics)


class ReducedCaptions(CaptionEvaluator):
    """As ``ReducedREC``."""

    def reduce(self, statistics: Sequence[dict[str, Any]]) -> dict[str, float]:
        """As the base class."""
        return super().reduce(statistics)


def read_json(path: Path) -> Any:
    """The content of a JSON file, gzipped or not."""
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


def expressions(folder: Path) -> list[Record]:
    """A record for each row of all files, its prediction the true box moved by some 25 pixels, as text."""
    rng, formatter, frames, records = random.Random(0), PlainFormatter(), {}, []
    for path in sorted(folder.glob("*.json*")):
        for row in read_json(path):
            size, box = (row["width"], row["height"]), list(xywh_to_xyxy(row["bbox"]))
            if size not in frames:
                scale = CANVAS / max(size)
                offset = tuple((CANVAS - side * scale) / 2 for side in size)
                frames[size] = Frame(size, (CANVAS, CANVAS), offset, (scale, scale))
            moved = frames[size].normalize([value + rng.gauss(0, 25) for value in box])
            meta, number = {"image_id": row["img_id"].rpartition("_")[0]}, len(records)
            pred = formatter.format_boxes([moved])
            records.append(Record(number, str(number), pred, truth={"boxes": [box]}, frames=[frames[size]], meta=meta))
    return records


def captions(path: Path, images: int = 5000) -> list[Record]:
    """A record an image: its first caption against the others."""
    texts: dict[int, list[str]] = {}
    for row in read_json(path)["annotations"]:
        texts.setdefault(row["image_id"], []).append(row["caption"])
    return [
        Record(number, str(image), first, truth={"references": others}, meta={"image_id": image})
        for number, (image, (first, *others)) in enumerate(list(texts.items())[:images])
    ]


def ious_one_by_one(pairs: Sequence[tuple[Any, Any]]) -> list[float]:
    """The per-record way, which the evaluator takes."""
    return [box_iou(a, b) for a, b in pairs]


def ious_in_one_pass(pairs: Sequence[tuple[Any, Any]]) -> list[float]:
    """All pairs by numpy, the same operations in the same order."""
    boxes = np.array(pairs, dtype=float)
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    a, b = (sides[..., 0] * sides[..., 1]).T
    common = np.minimum(*boxes[..., 2:].swapaxes(0, 1)) - np.maximum(*boxes[..., :2].swapaxes(0, 1))
    shared = np.maximum(common[:, 0], 0.0) * np.maximum(common[:, 1], 0.0)
    there = (a > 0) & (b > 0)
    return np.where(there, np.minimum(shared / np.where(there, a + b - shared, 1.0), 1.0), 0.0).tolist()


def check_draws(evaluator: Evaluator, found: Evaluation) -> None:
    """Stop unless a draw by sums is what ``reduce`` gives over the rows drawn."""
    names: dict[str, int] = {}
    clusters = np.array([names.setdefault(one, len(names)) for one in found.clusters])
    values_of, rng = evaluator.drawn(found.statistics, clusters), np.random.default_rng(1)
    for _ in range(3):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        rows = [found.statistics[place] for place in np.repeat(np.arange(len(clusters)), times[clusters])]
        expected, values = evaluator.reduce(rows), values_of(times)
        if any(abs(values[name] - expected[name]) > 1e-9 for name in evaluator.metrics):
            raise SystemExit("a draw by sums is not what reduce gives; nothing was measured")


def drawing(found: Evaluation, evaluator: Evaluator, draws: int) -> Callable[[], Any]:
    """Intervals from statistics that are there."""
    return lambda: bootstrap(evaluator, found.statistics, found.clusters, draws, 0)


def main() -> None:
    """Check, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=Path, default="data/refcoco_eval", help="folder of the eight splits")
    parser.add_argument("--captions", type=Path, default="data/coco/annotations/captions_val2017.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default="docs/benchmark", help="folder of scoring.csv")
    arguments = parser.parse_args()
    rec, caption = RECEvaluator(), CaptionEvaluator(tokenizer="plain", meteor="off")
    rec.formatter = PlainFormatter()
    boxes, texts = expressions(arguments.expressions), captions(arguments.captions)
    found = {rec: rec.evaluate(boxes, resamples=0), caption: caption.evaluate(texts, resamples=0)}
    pairs = [(row["value"], record.truth["boxes"][0]) for row, record in zip(found[rec].scores, boxes, strict=True)]
    each = [row["mean_iou"] for row in found[rec].scores]
    if not ious_one_by_one(pairs) == ious_in_one_pass(pairs) == each:
        raise SystemExit("the two ways to IoU differ; nothing was measured")
    for evaluator, evaluation in found.items():
        check_draws(evaluator, evaluation)
    sizes = f"{len(boxes)} expressions on {len(set(found[rec].clusters))} images, {len(texts)} captions"
    print(f"{sizes}; IoU equal to the last digit, draws within 1e-9\n")
    reduced = {rec: ReducedREC(), caption: ReducedCaptions(tokenizer="plain", meteor="off")}
    measures = {
        "IoU of all pairs": {
            "numpy, one pass": lambda: ious_in_one_pass(pairs),
            "box by box": lambda: ious_one_by_one(pairs),
        },
        "REC from the texts": {"no intervals": lambda: rec.evaluate(boxes, resamples=0)},
        f"REC from the texts, {DRAWS} draws": {"sums": lambda: rec.evaluate(boxes, resamples=DRAWS)},
    }
    for name, evaluator in (("REC", rec), ("captions", caption)):
        few = drawing(found[evaluator], reduced[evaluator], FEW)
        measures[f"{name}: {FEW} draws"] = {"sums": drawing(found[evaluator], evaluator, FEW), "reduce on each": few}
        measures[f"{name}: {DRAWS} draws"] = {"sums": drawing(found[evaluator], evaluator, DRAWS)}
    results = []
    for measure, contenders in measures.items():
        results += lines_of(measure, interleaved(contenders, arguments.rounds))
        show(results[-len(contenders) :])
    write_csv(arguments.out / "scoring.csv", results)


if __name__ == "__main__":
    main()
