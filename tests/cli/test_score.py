"""``mllm score RUN_DIR``: the run's own numbers from manifest and predictions alone."""

import json
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mllm.cli.main import main
from mllm.engine import evaluate
from mllm.engine.evaluate import EvaluationSet
from mllm.engine.records import read_records
from mllm.grounding import build_formatter
from mllm.registry import EVALUATORS
from mllm.structures import Frame, Record

FORMATTER = {"type": "PlainFormatter", "decimals": 2}


class _Rows(list):
    files = ()


def _boxes(count, seed=0):
    """Records of a grounding model: boxes that are off by a little, some answers without a box, three to an image."""
    rng, formatter, records = random.Random(seed), build_formatter(FORMATTER), []
    for index in range(count):
        frame = Frame((200, 100), (64, 64), (0.0, 16.0), (0.32, 0.32))
        x, y = rng.uniform(0, 120), rng.uniform(0, 50)
        truth = [x, y, x + rng.uniform(20, 80), y + rng.uniform(20, 50)]
        said = formatter.format_boxes([frame.normalize([value + rng.uniform(-15, 15) for value in truth])])
        meta = {"image_id": index // 3, "category": "ab"[index % 2], "prompt": f"Where is {index}?"}
        pred = "nowhere" if rng.random() < 0.1 else said
        records.append(Record(index, f"id{index}", pred, truth={"boxes": [truth]}, frames=[frame], meta=meta))
    return records


def _run(folder, monkeypatch, records=None, prefix="test", configs=({"type": "RECEvaluator"},)):
    """The files of an evaluation as a run writes them, ``records`` in the place of generation; gives its metrics."""
    records = _boxes(60) if records is None else records

    def predict(generator, dataset, path, label, made_of, on_notes=None):
        path.write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))
        return read_records(path)

    monkeypatch.setattr(evaluate, "predict", predict)
    monkeypatch.setattr(evaluate, "made_of", lambda generator, data: {})
    processor = SimpleNamespace(formatter=build_formatter(FORMATTER), conversation={"formatter": FORMATTER})
    accelerator = SimpleNamespace(is_main_process=True, num_processes=1)
    generator = SimpleNamespace(processor=processor, options={"max_new_tokens": 8}, accelerator=accelerator)
    folder.mkdir(exist_ok=True)
    dataset = SimpleNamespace(dataset=_Rows(records), item=None)
    evaluators = [EVALUATORS.build(one) for one in configs]
    evaluated = EvaluationSet(prefix, dataset, {"type": "Any"}, evaluators, list(configs))
    return evaluated.run(generator, folder, prefix)[0]


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    _run(folder, monkeypatch)
    return folder


def _score(*words):
    return main(["score", *map(str, words)])


def _json(folder, *words, out="scores.json"):
    path = folder / out
    assert _score(folder, "--json", path, *words) == 0
    return json.loads(path.read_text())["sets"]


def _lines(folder):
    return (folder / "test_predictions.jsonl").read_text().splitlines()


def _rewrite(folder, lines):
    (folder / "test_predictions.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _fails(capsys, message, *words):
    assert _score(*words) != 0
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("mllm: error: ")
    assert said.err.count("\n") == 1


def test_scores_equal_those_that_the_run_wrote_to_the_last_digit(tmp_path, monkeypatch):
    metrics = _run(tmp_path / "run", monkeypatch)
    (again,) = _json(tmp_path / "run")["test"]["evaluators"]
    flat = {f"test_{name}": value for name, value in again["metrics"].items()}
    assert flat == {name: value for name, value in metrics.items() if name in flat}
    assert 0 < again["metrics"]["failure_rate"] < 1
    written = json.loads((tmp_path / "run" / "test_scores.json").read_text())
    assert written["evaluators"] == [again]
    assert set(again["tables"]["category"]) == {"a", "b"}
    assert len(again["intervals"]["mean_iou"]) == 2


def test_the_results_of_hugging_face_stay_flat(tmp_path, monkeypatch):
    metrics = _run(tmp_path / "run", monkeypatch)
    assert all(isinstance(value, (int, float)) for value in metrics.values())


def test_the_text_shows_metrics_intervals_signature_and_categories(run_dir, capsys):
    assert _score(run_dir) == 0
    text = capsys.readouterr().out
    for part in ("test: 60 records", "acc@0.5", "95 % interval", "failure_rate", "by category", "no box in the answer"):
        assert part in text
    assert "rec|iou=cont|cmp=ge|level=sentence|box=PlainFormatter(brackets=square,decimals=2)" in text


def test_the_order_of_records_does_not_matter(run_dir):
    before, lines = _json(run_dir), _lines(run_dir)
    random.Random(1).shuffle(lines)
    _rewrite(run_dir, lines)
    assert _json(run_dir) == before


def test_neither_config_nor_torch_is_touched(run_dir):
    (run_dir / "config.py").write_text("raise SystemExit('the config was run')\n")
    program = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"  # importing them raises
        "from mllm.cli.main import main\n"
        f"assert main(['score', {str(run_dir)!r}]) == 0\n"
        "assert 'config' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=run_dir)
    assert done.returncode == 0, done.stderr
    assert "acc@0.5" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:7] + lines[9:], "58 predictions for 60 samples: 2 missing (7, 8)"),
        (lambda lines: [*lines, lines[3]], "1 repeated (3)"),
        (lambda lines: [*lines, lines[3].replace('"index": 3', '"index": 77')], "1 unknown (77)"),
        (lambda lines: [*lines[:-1], lines[-1][:50]], "test_predictions.jsonl:60:"),
        (lambda lines: [line.replace("Where is 5?", "What?") for line in lines], "the prompts are not those of its"),
        (lambda lines: [*lines[1:], '{"index": "0", "pred": "x"}'], "'index' must be a whole number"),
        (lambda lines: [], "60 missing (0, 1, 2, 3, 4, …)"),
    ],
)
def test_merging_is_a_check_of_the_set(run_dir, capsys, change, message):
    _rewrite(run_dir, change(_lines(run_dir)))
    _fails(capsys, message, run_dir)


def test_a_part_is_scored_where_it_is_allowed_and_marked(run_dir, capsys):
    _rewrite(run_dir, _lines(run_dir)[:50])
    assert _score(run_dir, "--allow-partial") == 0
    text = capsys.readouterr().out
    assert "test: 50 of 60 records" in text
    assert "|n=50 of 60|" in text
    _rewrite(run_dir, [*_lines(run_dir), _lines(run_dir)[0]])
    _fails(capsys, "1 repeated (0)", run_dir, "--allow-partial")


def test_sets_are_chosen_by_name(tmp_path, monkeypatch, capsys):
    for prefix in ("eval", "test", "multitest_other"):
        _run(tmp_path / "run", monkeypatch, _boxes(12), prefix)
    assert list(_json(tmp_path / "run")) == ["eval", "multitest_other", "test"]
    assert list(_json(tmp_path / "run", "--set", "other", "validation")) == ["multitest_other", "eval"]
    capsys.readouterr()
    _fails(capsys, "has no set 'tset'; did you mean 'test'?", tmp_path / "run", "--set", "tset")


def test_several_evaluators_of_a_set(tmp_path, monkeypatch):
    records = [Record(i, str(i), "a", truth={"references": ["a"], "answers": ["b"] * 10}) for i in range(4)]
    configs = ({"type": "ExactMatchEvaluator", "match": "squad"}, {"type": "VQAEvaluator", "variant": "m4c"})
    _run(tmp_path / "run", monkeypatch, records, configs=configs)
    first, second = _json(tmp_path / "run")["test"]["evaluators"]
    assert (first["metrics"]["exact_match"], second["metrics"]["vqa_accuracy"]) == (1.0, 0.0)
    assert "match=squad" in first["signature"]


def _manifest(folder, **changes):
    path = folder / "test_manifest.json"
    found = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


def test_a_manifest_of_before_there_was_a_format_is_read(run_dir):
    before = _json(run_dir)
    _manifest(run_dir, format=None, formatter=None, evaluator_modules=None)
    assert _json(run_dir) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluators": [{"type": "RECEvalutor"}]}, "did you mean 'RECEvaluator'"),
        ({"evaluators": [{"type": "RECEvaluator", "boxs": 1}]}, "takes no argument 'boxs'; did you mean 'boxes'"),
        ({"evaluators": None}, "'evaluators' is missing; predict the set again"),
        ({"count": None}, "'count' is missing"),
        ({"formatter": None, "conversation": None}, "it names no formatter"),
        ({"format": 99}, "written by a newer mllm"),
        ({"evaluators": [{"type": "antigravity.Evaluator"}]}, "add --import antigravity to score with it"),
    ],
)
def test_a_wrong_manifest_is_one_sentence(run_dir, capsys, changes, message):
    _manifest(run_dir, **changes)
    _fails(capsys, message, run_dir)
    assert "antigravity" not in sys.modules


def test_an_evaluator_from_outside_is_imported_when_asked(tmp_path, monkeypatch, capsys):
    (tmp_path / "score_plugin.py").write_text(
        "from mllm.evaluation.base import Evaluator\nfrom mllm.registry import EVALUATORS\n\n"
        "@EVALUATORS.register_module()\nclass LengthEvaluator(Evaluator):\n    metrics = ('length',)\n"
        "    def parse(self, record):\n        return record.pred\n"
        "    def statistics(self, value, record):\n        return {'length': float(len(value))}\n"
    )
    records = [Record(index, str(index), text, truth={"answers": ["x"]}) for index, text in enumerate(("four", "to"))]
    _run(tmp_path / "run", monkeypatch, records, configs=({"type": "ExactMatchEvaluator"},))
    _manifest(tmp_path / "run", evaluators=[{"type": "LengthEvaluator"}], evaluator_modules=["score_plugin"])
    _fails(capsys, "add --import score_plugin", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        assert _json(tmp_path / "run", "--import", "score_plugin")["test"]["evaluators"][0]["metrics"]["length"] == 3.0
    finally:
        EVALUATORS._module_dict.pop("LengthEvaluator", None)
        sys.modules.pop("score_plugin", None)


def test_what_is_asked_wrongly_is_one_sentence(tmp_path, run_dir, capsys):
    _fails(capsys, "does not exist", tmp_path / "no_such")
    _fails(capsys, "no *_manifest.json here", tmp_path)
    _fails(capsys, "expected one of: RUN_DIR")
    _fails(capsys, "expected one of: RUN_DIR", run_dir, "--compare", run_dir, run_dir)
    _fails(capsys, "--annotations is for files of others", run_dir, "--annotations", "x")
    _fails(capsys, "--resamples -1", run_dir, "--resamples", "-1")
    _fails(capsys, "cannot be written", run_dir, "--json", tmp_path)
    (run_dir / "test_predictions.jsonl").unlink()
    _fails(capsys, "test_predictions.jsonl' does not exist", run_dir)
