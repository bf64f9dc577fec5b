"""tools/benchmark/scoring.py on a few drawn rows: its checks pass and every measure is written."""

import csv
import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "benchmark" / "scoring.py"


def test_every_measure_is_written_after_the_checks_have_passed(tmp_path):
    rows = [
        {"img_id": f"COCO_{n // 2:012d}_{n}", "bbox": [10 + n, 20, 60, 40], "height": 300, "width": 200 + n % 3}
        for n in range(12)
    ]
    folder = tmp_path / "splits"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    texts = [
        {"image_id": n % 4, "caption": f"a {colour} dog number {n}"} for n, colour in enumerate(["red", "blue"] * 8)
    ]
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"annotations": texts}))
    words = ["--expressions", folder, "--captions", captions, "--rounds", 1, "--out", tmp_path]
    done = subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "24 expressions on 6 images, 4 captions; IoU equal to the last digit" in done.stdout
    with (tmp_path / "scoring.csv").open() as stream:
        measures = {row["measure"] for row in csv.DictReader(stream) if float(row["median_s"]) > 0}
    assert {"IoU of all pairs", "REC: 1000 draws", "captions: 1000 draws"} <= measures
