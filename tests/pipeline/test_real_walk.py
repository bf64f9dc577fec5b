"""Real COCO pictures with real RefCOCO/+/g expressions, from both layouts, with a real 32,000-piece tokenizer."""

import json

import pytest
from launch import FINETUNE, REPOSITORY, checked, run

LEAVES = ("refcoco_mini_refer_llava_tiny", "refcoco_mini_jsonl_llava_tiny")


def _results(folder):
    return json.loads((folder / "all_results.json").read_text())


@pytest.mark.parametrize("leaf", LEAVES)
def test_train_resume_evaluate_predict(leaf, shared_data, tmp_path):
    words = [FINETUNE, REPOSITORY / "config" / f"{leaf}.py", "--output_dir", tmp_path / "out", "--use_cpu"]
    words += ["--report_to", "none", "--save_steps", 2]
    tasks = ["--do_eval", "false", "--do_predict", "false"]
    checked(run([*words, "--max_steps", 2, *tasks], cwd=REPOSITORY))
    options = ["--cfg-options", "generation.max_new_tokens=8"]
    checked(run([*words, "--max_steps", 4, "--resume_from_checkpoint", *options], cwd=REPOSITORY))
    results = _results(tmp_path / "out")
    assert results["eval_samples"] == results["test_samples"] == 115
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    files = json.loads((tmp_path / "out" / "run.json").read_text())["data"]["train"]["files"]
    assert len(files) == (6 if "refer" in leaf else 8)
    assert all(len(one["sha256"]) == 64 for one in files)


@pytest.mark.slow
def test_trained_long_enough_it_knows_the_115_expressions_by_heart(shared_data, tmp_path):
    words = [REPOSITORY / "config" / f"{LEAVES[0]}.py", "--output_dir", tmp_path, "--use_cpu", "--report_to", "none"]
    checked(run([FINETUNE, *words], timeout=3600, cwd=REPOSITORY))
    assert _results(tmp_path)["test_acc@0.5"] >= 0.9
