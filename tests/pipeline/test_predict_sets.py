"""Runs that predict several sets: what is done stays done, what was stopped goes on, what fails is named."""

import json
import re
from pathlib import Path

import pytest
import tiny

from mllm.engine.predict import Generator
from mllm.evaluation.base import Evaluator
from mllm.pipeline import finetune
from mllm.registry import EVALUATORS
from mllm.utils.program import run_main

MARKER = "prediction_unfinished.json"


class FailsInTheTest(Evaluator):
    """An evaluator of a user that has a bug."""

    metrics = ("nothing",)

    def evaluate(self, records):
        return {}["a key that is not there"]


class Desk:
    """Starts finetune.py in this process; a run may be stopped before a batch, as a kill would."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.out, self.capsys = folder, folder / "out", capsys
        self.calls, self.stop_before = 0, None
        generate = Generator.generate

        def counted(generator, batch, draw=0):
            if self.calls == self.stop_before:
                raise KeyboardInterrupt
            self.calls += 1
            return generate(generator, batch, draw)

        monkeypatch.setattr(Generator, "generate", counted)
        monkeypatch.setitem(EVALUATORS.module_dict, "FailsInTheTest", FailsInTheTest)

    def config(self, evaluators=None, train=False, **sets):
        """A config that predicts sets of so many items in batches of two."""
        named = {
            name: {
                "dataset": {**tiny.REC, "count": count, "split": name},
                "evaluators": (evaluators or {}).get(name, tiny.EVALUATORS),
            }
            for name, count in sets.items()
        }
        training = {"do_train": train, "do_multi_predict": True, "per_device_eval_batch_size": 2}
        path = self.folder / "c.py"
        path.write_text(tiny.config_text(self.out, training_args=training, data_args={"multitest": named}))
        return path

    def run(self, *words, stop_before=None):
        """Exit code, and what was written to stderr."""
        self.calls, self.stop_before = 0, stop_before
        code = run_main(finetune.main, [str(word) for word in words], name="finetune.py")
        return code, self.capsys.readouterr().err

    def predictions(self):
        return {path.name: path.read_bytes() for path in self.out.glob("*_predictions.jsonl")}

    def results(self):
        return json.loads((self.out / "all_results.json").read_text())


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys):
    return Desk(tmp_path, monkeypatch, capsys)


def test_a_set_that_fails_is_named_and_the_others_are_done(desk):
    config = desk.config(a=3, b=3, c=3, evaluators={"b": [{"type": "FailsInTheTest"}]})
    code, error = desk.run(config)
    assert code == 1
    assert "multitest_b failed: KeyError: 'a key that is not there'" in error
    assert "in evaluate" in error  # where the evaluator's bug is
    last = error.strip().splitlines()[-1]
    assert last == "finetune.py: error: 1 of 3 sets failed: multitest_b: KeyError: 'a key that is not there'"
    assert desk.calls == 3 * 2
    for name in "ac":
        assert desk.results()[f"multitest_{name}_samples"] == 3
        assert (desk.out / f"multitest_{name}_scores.jsonl").is_file()
    assert "multitest_b_samples" not in desk.results()
    report = (desk.out / "report.html").read_text()
    assert [name for name in "abc" if f"<b>{name}</b>" in report] == ["a", "c"]

    # The evaluator mended, the same command: everything that was generated is scored, nothing is generated again.
    code, error = desk.run(desk.config(a=3, b=3, c=3))
    assert (code, desk.calls) == (0, 0)
    assert error.count("all 3 predictions are there, they are scored again") == 3
    assert desk.results()["multitest_b_samples"] == 3
    assert not (desk.out / MARKER).exists()

    # Nothing was left unfinished: a further run is asked to predict anew.
    assert desk.run(desk.config(a=3, b=3, c=3))[0] == 0
    assert desk.calls == 3 * 2


def test_a_run_that_was_stopped_goes_on_with_the_same_command(desk):
    config = desk.config(a=3, b=5)
    assert desk.run(config)[0] == 0
    whole = desk.predictions()
    desk.out = desk.folder / "stopped"
    words = [config, "--output_dir", desk.out]
    assert desk.run(*words, stop_before=4)[0] == 130  # two batches of a, two of three of b
    assert set(desk.predictions()) == {"multitest_a_predictions.jsonl"}
    assert desk.results()["multitest_a_samples"] == 3
    assert "<b>a</b>" in (desk.out / "report.html").read_text()
    code, error = desk.run(*words)
    assert (code, desk.calls) == (0, 1)
    assert "a: all 3 predictions are there" in error
    assert "b: resuming: 4 of 5 are there" in error
    assert desk.predictions() == whole
    assert not [path.name for path in desk.out.iterdir() if "part" in path.name or path.name == MARKER]


def test_what_is_there_is_predicted_again_where_it_was_made_of_something_else(desk):
    config = desk.config(a=3, b=5)
    assert desk.run(config, stop_before=4)[0] == 130
    before = (desk.out / "multitest_a_predictions.jsonl").read_text()
    assert desk.run(config, "--cfg-options", "generation.max_new_tokens=3")[0] == 0
    assert desk.calls == 2 + 3
    assert (desk.out / "multitest_a_predictions.jsonl").read_text() != before

    # A file that was changed by hand is not the one that its manifest was written for.
    assert desk.run(config, stop_before=2)[0] == 130
    path = desk.out / "multitest_a_predictions.jsonl"
    path.write_text(path.read_text().replace('"pred": "', '"pred": "x', 1))
    assert desk.run(config)[0] == 0
    assert desk.calls == 2 + 3


def test_predictions_of_a_finished_training_go_on_from_its_weights(desk):
    config = desk.config(a=5, train=True)
    assert desk.run(config, stop_before=2)[0] == 130
    code, error = desk.run(config)
    last = error.strip().splitlines()[-1]
    assert code == 1
    advice = re.search(
        r"go on with (--do_train false --do_eval false) --cfg-options (model_args.pretrained=\S+),", last
    )
    assert advice, last
    options = ["+" + advice[2].replace("'", ""), "model_args.config=None", "model_args.tokenizer=None"]
    code, error = desk.run(config, *advice[1].split(), "--cfg-options", *options)
    assert (code, desk.calls) == (0, 1), error
    assert "a: resuming: 4 of 5 are there" in error
    assert Path(desk.out / "multitest_a_results.json").is_file()
