"""Processes killed with SIGKILL on their way: what they wrote is kept, with any number of processes afterwards."""

import re
import signal
from pathlib import Path

from launch import checked, run, run_two

JOB = Path(__file__).with_name("resume_job.py")


def _there(folder):
    return sum(part.read_bytes().count(b"\n") for part in folder.glob("test_predictions.rank*.part"))


def test_a_run_killed_on_two_processes_and_then_on_one_ends_on_two_as_if_never_stopped(tmp_path):
    """Eleven items are six batches of two: 2 2 2 2 2 1."""
    # Rank 1 dies before its second batch; rank 0 has written up to three batches by the time it is stopped.
    killed = run_two([JOB, tmp_path, 1, 1])
    assert killed.returncode != 0
    first = _there(tmp_path)
    assert 2 <= first <= 8
    assert not (tmp_path / "test_predictions.jsonl").exists()

    with (tmp_path / "test_predictions.rank1.part").open("a") as part:
        part.write('{"index": 3, "id": "3", "pre')  # torn off within a record
    killed = run([JOB, tmp_path, 0, 1])
    assert killed.returncode == -signal.SIGKILL
    assert f"test: resuming: {first} of 11 are there" in killed.stderr
    second = _there(tmp_path)
    assert first < second <= first + 2

    ended = checked(run_two([JOB, tmp_path, "-", "-"]))
    assert f"test: resuming: {second} of 11 are there" in ended.stderr
    batches = -(-(11 - second) // 2)  # the last one may be the batch of one
    each = re.findall(r"rank (\d) generated (\d+) batches", ended.stdout)
    assert dict(each) == dict.fromkeys("01", str(-(-batches // 2)))
    assert (tmp_path / "test_predictions.jsonl").read_bytes() == (tmp_path / "whole_predictions.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test_predictions.jsonl", "whole_predictions.jsonl"]
