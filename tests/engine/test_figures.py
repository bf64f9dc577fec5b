"""Throughput, waiting and the time left are what a clock in the test's hand says they are."""

import json
from datetime import datetime
from types import SimpleNamespace

import clocked
import pytest
import torch
from clocked import Clock, rows_of, slow_trainer
from launch import checked, run_two

from mllm.engine.figures import FIGURES, Figures
from mllm.engine.log_line import line

ROW = {
    "loss": 1.2341,
    "grad_norm": 0.8712,
    "learning_rate": 2e-4,
    "tokens_per_second": 3104.2,
    "samples_per_second": 12.3,
    "data_wait": 0.041,
    "memory_gb": 1.23,
    "eta_seconds": 42 * 60.0,
    "epoch": 1.9,
}


def accelerator(*others):
    """A process among ``others``, given by their (tokens, samples, seconds worked, seconds waited, memory)."""
    theirs = [torch.tensor([one], dtype=torch.float32) for one in others]
    return SimpleNamespace(device=torch.device("cpu"), gather=lambda mine: torch.cat([mine, *theirs]))


def batch(*lengths):
    longest = max(lengths)
    attention_mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    return {"input_ids": torch.zeros_like(attention_mask), "attention_mask": attention_mask}


def measured(clock, batches, *, fetch=2.0, step=6.0):
    """Figures of one interval in which a batch takes ``fetch`` seconds to come and ``step`` to train on."""

    def source():
        for one in batches:
            clock.pass_by(fetch)
            yield one

    figures = Figures(clock)
    figures.resume()
    for one in figures.waiting(source()):
        figures.count([one])
        clock.pass_by(step)
    return figures


def test_tokens_without_padding_samples_and_the_share_of_waiting():
    # 2 batches: 4 s of waiting and 12 s of training; 3 + 5 + 2 tokens of 3 samples.
    figures = measured(Clock(), [batch(3, 5), batch(2)])
    row = figures.row(2, 10, accelerator())
    assert row["tokens_per_second"] == pytest.approx(10 / 16, abs=0.01)
    assert row["samples_per_second"] == pytest.approx(3 / 16, abs=0.001)
    assert row["data_wait"] == 0.25
    assert row["eta_seconds"] == 8 * 16 / 2
    assert row["memory_gb"] > 0.01
    assert tuple(row) == FIGURES


def test_processes_add_up_and_the_slowest_one_sets_the_time():
    # The other process: 30 tokens, 5 samples, 20 s worked, of them 15 waiting, 70 GB.
    figures = measured(Clock(), [batch(3, 5), batch(2)])
    row = figures.row(2, 10, accelerator((30, 5, 20, 15, 70)))
    assert row["tokens_per_second"] == 40 / 20
    assert row["samples_per_second"] == 8 / 20
    assert row["data_wait"] == 0.75
    assert row["memory_gb"] == 70


def test_what_happens_in_a_pause_and_before_the_row_counts_nowhere():
    clock = Clock()
    figures = measured(clock, [batch(4)])
    figures.pause()
    clock.pass_by(1000)
    assert figures.row(1, 2, accelerator())["tokens_per_second"] == 0.5  # 4 tokens in 8 s
    clock.pass_by(1000)
    figures.resume()
    clock.pass_by(2)
    figures.count([batch(6)])
    assert figures.row(2, 2, accelerator())["tokens_per_second"] == 3


def test_a_batch_without_a_mask_counts_all_its_tokens():
    figures = measured(Clock(), [{"input_ids": torch.zeros(2, 8)}])
    assert figures.row(1, 1, accelerator())["tokens_per_second"] == 2


def test_no_batch_is_fetched_before_it_is_asked_for():
    asked = []
    source = (asked.append(number) or number for number in range(5))
    batches = Figures(Clock()).waiting(source)
    assert [next(batches), next(batches)] == [0, 1]
    assert asked == [0, 1]
    assert next(Figures(Clock()).waiting(source)) == 2


def test_the_trainer_measures_steps_alone(tmp_path):
    """Neither evaluations nor other callbacks, of 1000 s each, are in the throughput; they are in the time left.

    Steps of 3 s, batches of 4 items of 1 s. accelerate fetches a batch ahead: 12 s of items before step 2, then 8 s,
    then the one batch that is left.
    """
    rows = rows_of(slow_trainer(tmp_path))
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert [row["data_wait"] for row in rows] == pytest.approx([12 / 18, 8 / 14, 4 / 10], abs=1e-4)
    assert [row["samples_per_second"] for row in rows] == pytest.approx([8 / 18, 8 / 14, 8 / 10], abs=1e-3)
    # Until step 2: 18 s, the pages of two steps, an evaluation; until step 4: 14 s, two pages and evaluations more.
    assert [row["eta_seconds"] for row in rows] == [3018 / 2 * 4, 7032 / 4 * 2, 0]
    assert all(row["memory_gb"] > 0.01 for row in rows)


def test_a_resumed_run_counts_from_its_own_start_and_takes_the_same_steps(tmp_path):
    whole = rows_of(slow_trainer(tmp_path / "whole"))
    resumed = rows_of(slow_trainer(tmp_path / "again"), tmp_path / "whole" / "checkpoint-2")
    assert [row["loss"] for row in resumed] == [row["loss"] for row in whole[1:]]
    # Passed over are batches 1 and 2, read are 3, 4 and, ahead, 5: 12 s; two of the run's own steps, two more to come.
    assert [row["data_wait"] for row in resumed] == pytest.approx([12 / 18, 4 / 10], abs=1e-4)
    assert [row["samples_per_second"] for row in resumed] == pytest.approx([8 / 18, 8 / 10], abs=1e-3)
    assert [row["eta_seconds"] for row in resumed] == [3018, 0]


def test_two_processes_give_sums_over_both(tmp_path):
    """Batch 4 on one process is 2 × 2 on two; the second one reads items at half the speed: 12 s until step 2."""
    single = rows_of(slow_trainer(tmp_path / "one"))
    checked(run_two([clocked.__file__, tmp_path / "two", 2]))
    double = json.loads((tmp_path / "two" / "rows.json").read_text())
    assert [row["samples_per_second"] for row in double] == [row["samples_per_second"] for row in single]
    assert [row["tokens_per_second"] for row in double] == [row["tokens_per_second"] for row in single]
    assert [row["data_wait"] for row in double] == [row["data_wait"] for row in single]
    assert [row["loss"] for row in double] == pytest.approx([row["loss"] for row in single], abs=1e-4)


def test_a_row_is_one_line_that_a_person_reads():
    now = datetime(2026, 3, 14, 17, 0)
    assert line(ROW, 120, 650, now) == (
        "step 120/650  loss 1.234  lr 2e-4  grad 0.871  3.1k tok/s  12 samples/s  data 4 %  mem 1.2 GB  done ~17:42"
    )
    assert line({**ROW, "eta_seconds": 86400.0}, 120, 650, now).endswith("done ~Sun 17:00")
    assert line({**ROW, "eta_seconds": 30 * 86400.0}, 120, 650, now).endswith("done ~2026-04-13")
    assert "done" not in line({**ROW, "eta_seconds": 0.0}, 650, 650, now)


def test_scores_and_the_end_of_training_are_lines_too():
    scores = {"eval_acc@0.5": 0.41234, "eval_runtime": 83.0, "eval_samples": 500, "epoch": 1.0}
    assert line(scores, 120, 650) == "step 120/650  eval  acc@0.5 0.4123  in 1 min 23 s  samples 500"
    assert line(scores, 0, 0) == "eval  acc@0.5 0.4123  in 1 min 23 s  samples 500"
    end = {
        "train_runtime": 7260.4,
        "train_samples_per_second": 1234.5,
        "train_steps_per_second": 3.0,
        "total_flos": 1e9,
    }
    expected = "step 650/650  training took 2 h 1 min  loss 1.235  1.2k samples/s"
    assert line({**end, "total_flos": 1e9, "train_loss": 1.2346}, 650, 650) == expected


@pytest.mark.parametrize(
    ("rate", "text"), [(2e-4, "2e-4"), (1.85e-5, "1.85e-5"), (0.0, "0"), (1.0, "1e0"), (float("nan"), "nan")]
)
def test_learning_rates_are_short(rate, text):
    assert line({"loss": 1.0, "learning_rate": rate}, 1, 2) == f"step 1/2  loss 1  lr {text}"


@pytest.mark.parametrize(
    ("speed", "text"),
    [
        (0.423, "0.42"),
        (9.64, "9.6"),
        (120.4, "120"),
        (3104, "3.1k"),
        (12345, "12k"),
        (999950, "1000k"),
        (2.4e6, "2.4M"),
    ],
)
def test_speeds_are_short(speed, text):
    assert line({"tokens_per_second": speed}, 1, 2) == f"step 1/2  {text} tok/s"
