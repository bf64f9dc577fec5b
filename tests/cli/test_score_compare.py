"""``mllm score --compare A B``: paired differences, and what may not be compared."""

import json

import pytest

from mllm.cli.main import main

MANIFEST = {
    "format": 1,
    "count": 8,
    "data": {"rows": 8, "files": [{"path": "a.jsonl", "bytes": 1, "sha256": "00"}]},
    "formatter": {"type": "PlainFormatter"},
    "evaluators": [{"type": "ExactMatchEvaluator"}],
}


def _run(folder, right, truth="yes", **manifest):
    """A run on 8 questions, two to an image; ``right`` holds those that it answers well."""
    folder.mkdir()
    rows = [
        {
            "index": index,
            "pred": truth if index in right else "wrong",
            "truth": {"answers": [truth]},
            "meta": {"image_id": index // 2},
        }
        for index in range(8)
    ]
    (folder / "test_predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test_manifest.json").write_text(json.dumps(MANIFEST | manifest))
    return folder


def _compare(tmp_path, a, b, *words):
    out = tmp_path / "out.json"
    assert main(["score", "--compare", str(a), str(b), "--json", str(out), *words]) == 0
    (found,) = json.loads(out.read_text())
    return found


def _fails(capsys, message, *words):
    assert main(["score", "--compare", *map(str, words)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_better_everywhere_is_better_in_every_draw(tmp_path, capsys):
    # One of the two questions of each image becomes right: the difference of any draw of images is 1/2.
    a, b = _run(tmp_path / "a", set()), _run(tmp_path / "b", {0, 2, 4, 6})
    found = _compare(tmp_path, a, b)
    assert found["differences"]["exact_match"] == {
        "a": 0.0,
        "b": 0.5,
        "difference": 0.5,
        "interval": [0.5, 0.5],
        "b_greater": 1.0,
    }
    assert found["samples"] == 8
    text = capsys.readouterr().out
    assert "+0.5000 … +0.5000" in text
    assert "100.0%" in text


def test_the_same_answers_differ_nowhere_and_a_swap_turns_the_sign(tmp_path):
    a, b = _run(tmp_path / "a", {0, 1, 5}), _run(tmp_path / "b", {0, 1, 2, 3, 7})
    same = _compare(tmp_path, a, a)["differences"]["exact_match"]
    assert (same["interval"], same["b_greater"]) == ([0.0, 0.0], 0.0)
    there, back = (_compare(tmp_path, *pair)["differences"]["exact_match"] for pair in ((a, b), (b, a)))
    # 5/8 - 3/8; images draw +1, 0, -1/2 and +1/2 for themselves.
    assert there["difference"] == -back["difference"] == 0.25
    assert -0.5 <= there["interval"][0] < 0.25 < there["interval"][1] <= 1.0
    assert 0 < back["b_greater"] < there["b_greater"] < 1


def test_files_of_scores_give_what_the_folders_give(tmp_path):
    a, b = _run(tmp_path / "a", {0, 1, 5}), _run(tmp_path / "b", {0, 1, 2, 3, 7})
    for folder in (a, b):
        assert main(["score", str(folder), "--json", str(tmp_path / f"{folder.name}.json")]) == 0
    folders = _compare(tmp_path, a, b)
    assert _compare(tmp_path, tmp_path / "a.json", tmp_path / "b.json") == folders
    assert _compare(tmp_path, a / "test_predictions.jsonl", tmp_path / "b.json", "--set", "test") == folders


def test_sets_of_one_side_alone_are_named(tmp_path, capsys):
    a, b = _run(tmp_path / "a", {0, 1, 5}), _run(tmp_path / "b", {0, 1, 2})
    for ending in ("manifest.json", "predictions.jsonl"):
        (b / f"eval_{ending}").write_text((b / f"test_{ending}").read_text())
        (a / f"multitest_x_{ending}").write_text((a / f"test_{ending}").read_text())
    assert _compare(tmp_path, a, b)["a"] == "test"
    text = capsys.readouterr().out
    assert "in A alone: multitest_x\nin B alone: eval\n" in text


def test_common_samples_of_a_part(tmp_path, capsys):
    a, b = _run(tmp_path / "a", set()), _run(tmp_path / "b", set(range(8)))
    path = b / "test_predictions.jsonl"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:6]))
    _fails(capsys, "2 missing (6, 7)", a, b)
    found = _compare(tmp_path, a, b, "--allow-partial")
    assert found["samples"] == 6
    assert found["signatures"][0][1].count("|n=6 of 8|") == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"truth": "no"}, "the truth of 8 samples differs (id 0, 1, 2, 3, 4, …)"),
        ({"data": {"rows": 8, "files": [{"path": "b.jsonl", "sha256": "11"}]}}, "other fingerprints (a.jsonl and b."),
        ({"evaluators": [{"type": "ExactMatchEvaluator", "match": "squad"}]}, "expected the same options"),
        ({"evaluators": [{"type": "GQAEvaluator"}]}, "expected a common evaluator"),
    ],
)
def test_what_is_not_of_the_same_data_is_refused(tmp_path, capsys, other, message):
    _fails(capsys, message, _run(tmp_path / "a", {0}), _run(tmp_path / "b", {0}, **other))


def test_what_is_no_run_and_no_file_of_scores_is_named(tmp_path, capsys):
    a = _run(tmp_path / "a", {0})
    _fails(capsys, "no such folder or file", a, tmp_path / "none")
    (tmp_path / "x.json").write_text('{"acc": 1}')
    _fails(capsys, "no file of scores with their records", a, tmp_path / "x.json")
    _fails(capsys, "has no set 'tets'; did you mean 'test'", a, a, "--set", "tets")
