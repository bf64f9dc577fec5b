"""What a run says about its sources before it starts."""

import tiny

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.pipeline.sources import source_table, source_uses
from mllm.registry import DATASETS


def samples(cfg):
    return SingleImageConvDataset(DATASETS.build(cfg), tiny.family().build_processor(tiny.CONVERSATION))


def test_uses_count_rows_samples_epochs_tokens_and_images():
    repeated = {"type": "RepeatDataset", "dataset": {"type": "DrawnREC", "count": 8}, "times": 2.5}
    mixed = samples({"type": "ConcatDataset", "datasets": [repeated, {"type": "DrawnVQA", "count": 10, "turns": 2}]})
    first, second = source_uses(mixed, epochs=3)
    # 8 rows, 2.5 times in each of 3 epochs.
    assert (first.source.rows, first.samples, first.effective_epochs) == (8, 60, 7.5)
    assert (second.source.rows, second.samples, second.effective_epochs) == (10, 30, 3)
    alone = samples({"type": "DrawnVQA", "count": 10, "turns": 2})
    features = [alone.sample(index).features for index in range(10)]
    assert second.tokens == sum(len(one["input_ids"]) for one in features) / 10
    assert second.trained == sum(label != -100 for one in features for label in one["labels"]) / 10
    assert second.images == 1


def test_of_a_subset_only_its_rows_count_and_names_are_unique():
    part = {"type": "SubsetDataset", "dataset": {"type": "DrawnREC", "count": 40}, "count": 4}
    uses = source_uses(samples({"type": "ConcatDataset", "datasets": [part, {"type": "DrawnREC", "count": 5}]}), 2)
    assert [(use.rows, use.samples, use.effective_epochs) for use in uses] == [(4, 8, 2), (5, 10, 2)]
    assert len({use.name for use in uses}) == 2


def test_the_table_has_a_line_a_source_and_totals_of_the_run():
    uses = source_uses(samples({"type": "DrawnREC", "count": 20}), epochs=100)
    head, line = source_table(uses).splitlines()
    assert head.split() == ["source", "rows", "samples", "epochs", "tokens", "trained", "images"]
    name, rows, drawn, epochs, *counts = line.split()
    assert (name, rows, drawn, epochs) == ("DrawnREC", "20", "2,000", "100.00")
    assert counts[-2:] == ["~2", "k"]


def test_rows_that_cannot_be_read_do_not_stop_the_count(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"broken\n' * 5)
    (use,) = source_uses(samples({"type": "ItemJsonl", "path": str(tmp_path / "items.jsonl")}), epochs=1)
    assert (use.source.rows, use.tokens) == (5, 0)
