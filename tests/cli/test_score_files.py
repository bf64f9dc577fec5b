"""``mllm score --evaluator``: predictions and annotations that others wrote."""

import gzip
import json

import pytest

from mllm.cli.main import main
from mllm.evaluation import captions, java_tools


@pytest.fixture
def score(tmp_path):
    """Score files of others: (set's entry, its only evaluator's outcome)."""

    def run(evaluator, predictions, *annotations, words=()):
        out = tmp_path / "out.json"
        files = ["--predictions", predictions, *(["--annotations", *annotations] if annotations else [])]
        assert main(["score", "--evaluator", evaluator, *map(str, files), "--json", str(out), *map(str, words)]) == 0
        (found,) = json.loads(out.read_text())["sets"].values()
        return found, found["evaluators"][0]

    return run


def _write(path, value, lines=False):
    text = "".join(json.dumps(row) + "\n" for row in value) if lines else json.dumps(value)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def _fails(capsys, message, *words):
    assert main(["score", *map(str, words)]) != 0
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# Counts and values of LLaVA-1.5-13B's files: PROVENANCE.md of their folder.
@pytest.mark.parametrize(("subset", "count", "f1"), [("random", 2910, 0.871360), ("popular", 3000, 0.862459)])
def test_llavas_pope_numbers(shared_data, score, subset, count, f1):
    folder = shared_data / "llava15_eval_outputs" / "pope"
    words = ["--questions", folder / "llava_pope_test.jsonl.gz", "--select", f"category={subset}", "--resamples", 20]
    answers, labels = folder / "answers" / "llava-v1.5-13b.jsonl.gz", folder / "coco" / f"coco_pope_{subset}.json.gz"
    found, result = score("POPEEvaluator", answers, labels, words=words)
    assert found["count"] == found["expected"] == count
    assert result["metrics"]["f1"] == pytest.approx(f1, abs=5e-7)
    assert list(result["tables"]["category"]) == [subset]
    assert result["intervals"]["f1"][0] < f1 < result["intervals"]["f1"][1]


def test_llavas_answers_to_one_subset_are_not_scored_against_another(shared_data, capsys):
    folder = shared_data / "llava15_eval_outputs" / "pope"
    words = ["--evaluator", "POPEEvaluator", "--predictions", folder / "answers" / "llava-v1.5-13b.jsonl.gz"]
    words += ["--questions", folder / "llava_pope_test.jsonl.gz"]
    words += ["--annotations", folder / "coco" / "coco_pope_popular.json.gz"]
    # Both subsets have 3,000 questions under the ids 1 to 3000.
    message = "does not ask the annotation's question 'Is there a dining table in the image?'"
    _fails(capsys, message, *words, "--select", "category=adversarial")
    _fails(capsys, "8910 predictions but 3000 annotations", *words)
    _fails(capsys, "did you mean 'adversarial'", *words, "--select", "category=adverserial")


def test_llavas_scienceqa_numbers(shared_data, score):
    folder = shared_data / "llava15_eval_outputs" / "scienceqa"
    answers, truth = folder / "answers" / "llava-v1.5-13b_output.jsonl.gz", folder / "llava_test_CQM-A.json.gz"
    words = ["--option", "expected=4241", "--resamples", 0]
    _, result = score("ScienceQAEvaluator", answers, truth, words=words)
    assert result["metrics"]["accuracy"] * 4241 == pytest.approx(3155, abs=1e-6)
    row = result["tables"]["context"]["IMG"]
    assert (row["accuracy"] * row["samples"], row["samples"]) == pytest.approx((1445, 2017), abs=1e-6)
    assert "expected=4241" in result["signature"]
    _, first = score("ScienceQAEvaluator", folder / "test_sqa_llava_13b_v0.json.gz", truth, words=words)
    assert first["metrics"]["accuracy"] * 4241 == pytest.approx(3855, abs=1e-6)


def test_llavas_textvqa_number(shared_data, score):
    folder = shared_data / "llava15_eval_outputs" / "textvqa"
    words = ["--questions", folder / "val_questions_vqa_format.json.gz", "--option", "variant=m4c", "--resamples", 0]
    answers = folder / "answers" / "llava-v1.5-13b.jsonl.gz"
    found, result = score("VQAEvaluator", answers, folder / "val_annotations_vqa_format.json.gz", words=words)
    assert found["count"] == 5000
    assert 100 * result["metrics"]["vqa_accuracy"] == pytest.approx(61.254, abs=5e-4)


def test_image_ids_that_repeat_need_the_questions(shared_data, capsys):
    folder = shared_data / "llava15_eval_outputs" / "textvqa"
    words = ["--evaluator", "VQAEvaluator", "--predictions", folder / "answers" / "llava-v1.5-13b.jsonl.gz"]
    _fails(capsys, "--questions FILE", *words, "--annotations", folder / "val_annotations_vqa_format.json.gz")


def test_the_problems_of_scienceqa_with_their_splits(shared_data, score, tmp_path):
    folder = shared_data / "scienceqa_mini"
    problems = json.loads((folder / "problems.json").read_text())
    test = [pid for pid in json.loads((folder / "pid_splits.json").read_text())["test"] if pid in problems][:3]
    splits = _write(tmp_path / "pid_splits.json", {"train": [pid for pid in problems if pid not in test], "test": test})
    rows = [{"question_id": pid, "text": "ABCDE"[problems[pid]["answer"]]} for pid in test]
    predictions = _write(tmp_path / "answers.jsonl", rows[::-1], lines=True)
    words = ["--select", "split=test"]
    found, result = score("ScienceQAEvaluator", predictions, folder / "problems.json", splits, words=words)
    assert found["expected"] == 3
    assert result["metrics"]["accuracy"] == 1.0
    assert set(result["tables"]) == {"subject", "context", "grade", "topic"}


def test_three_subsets_of_pope_are_averaged(score, tmp_path):
    questions, answers, files, number = [], [], [], 0
    for subset, said in (("random", "yes"), ("popular", "yes"), ("adversarial", "no")):
        rows = []
        for name in ("dog", "cat"):
            number += 1
            text = f"Is there a {name} in the image?"
            questions.append({"question_id": number, "image": "x.jpg", "text": text, "category": subset})
            answers.append({"question_id": number, "prompt": f"{text}\nAnswer shortly.", "text": said})
            rows.append({"question_id": len(rows) + 1, "image": "x.jpg", "text": text, "label": "yes"})
        files.append(_write(tmp_path / f"coco_pope_{subset}.json", rows, lines=True))
    asked = _write(tmp_path / "questions.jsonl", questions, lines=True)
    predictions = _write(tmp_path / "answers.jsonl.gz", answers, lines=True)
    _, result = score("POPEEvaluator", predictions, *files, words=["--questions", asked])
    assert result["metrics"]["f1"] == pytest.approx(2 / 3)  # 1, 1 and 0
    assert result["tables"]["category"]["adversarial"]["f1"] == 0


ANSWERS = ["red"] * 9 + ["blue"]
VQA = {
    "annotations": [
        {"question_id": n, "image_id": n // 2, "answer_type": "other", "answers": [{"answer": a} for a in ANSWERS]}
        for n in range(4)
    ]
}
LINES = [{"id": f"q{n}", "answers": ANSWERS, "image_id": n // 2} for n in range(4)]
OURS = [{"index": n, "id": f"q{n}", "pred": "red" if n else "green"} for n in range(4)]


@pytest.mark.parametrize("ending", ["json", "json.gz"])
@pytest.mark.parametrize(
    ("evaluator", "predictions", "annotations"),
    [
        ("VQAEvaluator", [{"question_id": n, "answer": "red" if n else "green"} for n in range(4)], VQA),
        ("VQAEvaluator", OURS, LINES),
        ("ExactMatchEvaluator", [{"question_id": f"q{n}", "text": "red" if n else "green"} for n in range(4)], LINES),
        ("ExactMatchEvaluator", [row | {"truth": {"answers": ANSWERS}} for row in OURS], None),
        (
            "ExactMatchEvaluator",
            [{"image_id": n, "caption": "a red dog" if n else "?"} for n in range(4)],
            {
                "images": [],
                "annotations": [{"image_id": n // 2, "caption": ("A red dog", "a cat")[n % 2]} for n in range(8)],
            },
        ),
        (
            "VQAEvaluator",
            [{"image": f"{n}.jpg", "answer": "red" if n else "green"} for n in range(4)],
            [{"image": f"{n}.jpg", "question": "?", "answers": [{"answer": a} for a in ANSWERS]} for n in range(4)],
        ),
        (
            "GQAEvaluator",
            [{"question_id": str(n), "text": "Red." if n else "green"} for n in range(4)],
            {
                str(n): {"question": "Which?", "answer": "red", "imageId": "1", "types": {"structural": "query"}}
                for n in range(4)
            },
        ),
    ],
)
def test_layouts_are_known_by_their_fields_and_the_order_does_not_matter(
    score, tmp_path, evaluator, predictions, annotations, ending
):
    """Three of four are right."""
    told = _write(tmp_path / f"predictions.{ending}", predictions[::-1], lines=isinstance(annotations, list))
    truth = [] if annotations is None else [_write(tmp_path / f"truth.{ending}", annotations)]
    found, result = score(evaluator, told, *truth)
    assert next(iter(result["metrics"].values())) == 0.75
    assert (found["count"], found["expected"]) == (4, 4)


def test_boxes_in_pixels_against_generic_lines(score, tmp_path):
    truth = [{"id": n, "boxes": [[0, 0, 10, 10]], "category": "small"} for n in range(2)]
    said = [{"question_id": 0, "text": "[0, 0, 10, 10]"}, {"question_id": 1, "text": "[0, 0, 10, 4]"}]
    files = [_write(tmp_path / name, rows, lines=True) for name, rows in (("p.jsonl", said), ("t.jsonl", truth))]
    _, result = score("RECEvaluator", *files, words=["--option", "boxes=pixels"])
    assert result["metrics"]["acc@0.5"] == 0.5
    assert result["metrics"]["mean_iou"] == pytest.approx(0.7)
    assert list(result["tables"]["category"]) == ["small"]


def test_ids_that_do_not_match_are_named(score, tmp_path, capsys):
    truth = _write(tmp_path / "t.jsonl", LINES, lines=True)
    part = _write(tmp_path / "part.jsonl", OURS[:3], lines=True)
    more = _write(tmp_path / "more.jsonl", [*OURS, {"index": 9, "id": "q9", "pred": "x"}], lines=True)
    twice = _write(tmp_path / "twice.jsonl", [{"question_id": f"q{n}", "text": "x"} for n in (0, 0, 2, 3)], lines=True)
    words = ["--evaluator", "ExactMatchEvaluator", "--annotations", truth, "--predictions"]
    _fails(capsys, "3 predictions do not match 4 annotations: 1 without prediction: q3", *words, part)
    _fails(capsys, "1 unknown: q9", *words, more)
    _fails(capsys, "1 predicted more than once (question_id): q0, 1 without prediction: q1", *words, twice)
    found, result = score("ExactMatchEvaluator", part, truth, words=["--allow-partial"])
    assert (found["count"], found["expected"]) == (3, 4)
    assert "|n=3 of 4|" in result["signature"]


def test_unknown_layouts_and_wrong_words_are_one_sentence(tmp_path, capsys):
    odd = _write(tmp_path / "odd.json", [{"a": 1, "b": 2}])
    good = _write(tmp_path / "good.jsonl", OURS, lines=True)
    broken = tmp_path / "broken.json.gz"
    broken.write_bytes(b"\x1f\x8b not gzip")
    words = ["--evaluator", "ExactMatchEvaluator", "--predictions"]
    _fails(capsys, "unknown layout of predictions (fields 'a', 'b'); known: mllm", *words, odd)
    _fails(capsys, 'VQA results [{"question_id", "answer"}]', *words, odd)
    _fails(capsys, "unknown layout of annotations", *words, good, "--annotations", odd)
    _fails(
        capsys, "entry 2: expected an object", *words, _write(tmp_path / "mixed.json", [{"index": 0, "pred": "x"}, 5])
    )
    rows = _write(tmp_path / "rows.json", {"annotations": [{"question_id": 1, "answers": []}, 5]})
    _fails(capsys, "entry 1: field 'image_id' is missing", *words, good, "--annotations", rows)
    _fails(capsys, "broken gzip file", *words, broken)
    _fails(capsys, "none.json: no such file", *words, tmp_path / "none.json")
    _fails(capsys, "--evaluator needs --predictions", "--evaluator", "ExactMatchEvaluator")
    _fails(capsys, "did you mean 'ExactMatchEvaluator'", "--evaluator", "ExactMatchEvalutor", "--predictions", good)
    _fails(capsys, "takes no argument 'mach'; did you mean 'match'", *words, good, "--option", "mach=squad")
    _fails(capsys, "--option 'squad': expected name=value", *words, good, "--option", "squad")
    _fails(capsys, "no formatter is known", "--evaluator", "RECEvaluator", "--predictions", good)


def test_captions_are_compared_by_their_file_of_scores(tmp_path, capsys):
    truth = {
        "images": [],
        "annotations": [{"image_id": n, "caption": f"a red dog runs past {n} cats"} for n in range(6)],
    }
    annotations = _write(tmp_path / "captions.json", truth)
    for name, wrong in (("a", "?"), ("b", "a red dog runs past")):
        said = [{"image_id": n, "caption": f"a red dog runs past {n} cats" if n % 2 else wrong} for n in range(6)]
        words = ["--evaluator", "CaptionEvaluator", "--predictions", _write(tmp_path / f"{name}_said.json", said)]
        words += ["--option", "tokenizer=none", "meteor=off", "--annotations", annotations]
        assert main(["score", *map(str, words), "--json", str(tmp_path / f"{name}.json")]) == 0
    capsys.readouterr()
    assert main(["score", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "6 common records" in capsys.readouterr().out


def test_scores_from_where_java_is_missing_are_compared_where_it_is(tmp_path, capsys, monkeypatch):
    truth = {"annotations": [{"image_id": n, "caption": f"a red dog runs past {n} cats"} for n in range(4)]}
    annotations = _write(tmp_path / "captions.json", truth)
    monkeypatch.setattr(java_tools.shutil, "which", lambda name: None)
    for name in "ab":
        said = [{"image_id": n, "caption": "a red dog runs"} for n in range(4)]
        words = ["--evaluator", "CaptionEvaluator", "--predictions", _write(tmp_path / f"{name}_said.json", said)]
        words += ["--annotations", annotations, "--json", tmp_path / f"{name}.json"]
        assert main(["score", *map(str, words)]) == 0
    capsys.readouterr()
    monkeypatch.setattr(captions, "find_jar", lambda jar: ("java", jar))
    assert main(["score", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    text = capsys.readouterr().out
    assert "BLEU-4" in text
    assert "\nMETEOR " not in text


def test_scores_of_answerability_are_joined_by_image(score, tmp_path):
    said = [{"image": f"{n}.jpg", "answerable": (0, 0.3, 1)[n]} for n in range(3)]
    rows = [
        {"image": f"{n}.jpg", "question": "?", "answers": [{"answer": "x"}], "answerable": n % 2} for n in (2, 1, 0)
    ]
    files = [_write(tmp_path / "said.json", said), _write(tmp_path / "val.json", rows)]
    _, result = score("AnswerabilityEvaluator", *files, words=["--option", "read=score"])
    # Unanswerable are 0 (found) and 2 (last of all): 1 · 1/2 + 2/3 · 1/2; one hit, one false, one missed.
    assert result["metrics"]["average_precision"] == pytest.approx(5 / 6)
    assert result["metrics"]["f1"] == 0.5
