"""``blind_test``: the test sets a second time with blanked pictures."""

import json

import pytest
import tiny

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import ConfigError
from mllm.pipeline import finetune
from mllm.registry import DATASETS

TRAINING = {"do_train": False, "do_predict": True, "do_multi_predict": True, "blind_test": True}
REC_SET = {"dataset": {**tiny.REC, "count": 3, "split": "other"}, "evaluators": tiny.EVALUATORS}


def _config(folder, multitest):
    path = folder / "c.py"
    path.write_text(
        tiny.config_text(folder / "out", training_args=TRAINING, data_args={"test": REC_SET, "multitest": multitest})
    )
    return path


def _records(folder, prefix):
    return [json.loads(line) for line in (folder / f"{prefix}_predictions.jsonl").read_text().splitlines()]


def test_every_test_set_is_predicted_again_with_the_same_prompts_and_grey_pictures(tmp_path):
    finetune.main([str(_config(tmp_path, {"a": REC_SET}))])
    folder = tmp_path / "out"
    results = json.loads((folder / "all_results.json").read_text())
    report = (folder / "report.html").read_text()
    for prefix, name in (("test", "test"), ("multitest_a", "a")):
        assert results[f"{prefix}_blind_samples"] == 3
        assert f"{prefix}_blind_acc@0.5" in results
        assert f"<b>{name} (blanked pictures)</b>" in report
        seeing, blind = _records(folder, prefix), _records(folder, f"{prefix}_blind")
        assert [one["meta"]["prompt"] for one in blind] == [one["meta"]["prompt"] for one in seeing]
        assert [one["truth"] for one in blind] == [one["truth"] for one in seeing]
        manifest = json.loads((folder / f"{prefix}_blind_manifest.json").read_text())
        assert manifest["dataset"] == {"type": "BlankImages", "dataset": REC_SET["dataset"]}


def test_a_set_whose_files_would_be_overwritten_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="blind_test: the files of multitest_a_blind would be another set's"):
        finetune.main([str(_config(tmp_path, {"a": REC_SET, "a_blind": REC_SET}))])


def test_a_question_without_a_picture_has_nothing_to_blank(tmp_path):
    turns = [{"from": "human", "value": "say it"}, {"from": "gpt", "value": "yes"}]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"conversations": turns}) + "\n")
    items = {"type": "ItemJsonl", "path": str(rows), "image_root": str(tmp_path)}
    blank = DATASETS.build({"type": "BlankImages", "dataset": items})
    assert SingleImageConvDataset(blank, tiny.processor(), mode="generate").item(0).images == []
