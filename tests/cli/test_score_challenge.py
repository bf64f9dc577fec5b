"""``mllm score RUN --challenge OUT``: the files that challenge servers take, from records with or without truth."""

import json

import pytest

from mllm.cli.main import main


def _run(folder, rows, names=("test",)):
    folder.mkdir(exist_ok=True)
    for name in names:
        lines = [json.dumps({"index": index, **row}) for index, row in enumerate(rows)]
        (folder / f"{name}_predictions.jsonl").write_text("\n".join(lines) + "\n")
        manifest = {"format": 1, "count": len(rows), "evaluators": [], "formatter": {"type": "PlainFormatter"}}
        (folder / f"{name}_manifest.json").write_text(json.dumps(manifest))
    return folder


def _challenge(folder, *words):
    out = folder / "sent" / "out.json"
    assert main(["score", str(folder), "--challenge", str(out), *words]) == 0
    return json.loads(out.read_text())


def _fails(capsys, message, *words):
    assert main(["score", *map(str, words)]) != 0
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_captions_stand_by_image_and_what_was_not_generated_is_empty(tmp_path, capsys):
    rows = [
        {"pred": " a\n dög ", "meta": {"image_id": 9}, "truth": {"references": ["a dog"]}},
        {"pred": "lost", "failure": "test[1]: image is missing", "meta": {"image_id": "4"}},
    ]
    found = _challenge(_run(tmp_path / "run", rows))
    assert found == [{"image_id": 4, "caption": ""}, {"image_id": 9, "caption": "a dög"}]
    assert "2 entries of image_id and caption" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("meta", "truth", "entry"),
    [
        ({"question_id": 262148000, "image_id": "COCO_test2015_000000262148.jpg"}, {}, {"question_id": 262148000}),
        ({"image_id": "val/VizWiz_val_00000000.jpg"}, {"answers": ["no"]}, {"image": "VizWiz_val_00000000.jpg"}),
    ],
)
def test_answers_stand_by_question_or_by_the_name_of_the_image(tmp_path, meta, truth, entry):
    rows = [{"pred": "unanswerable\n", "meta": meta, "truth": {"question": "What is it?", **truth}}]
    assert _challenge(_run(tmp_path / "run", rows)) == [{**entry, "answer": "unanswerable"}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"meta": {}}], "record 0: meta['image_id'] must be a whole number, got None"),
        ([{"meta": {"image_id": "a.jpg"}}], "got 'a.jpg'"),
        ([{"meta": {"image_id": 7}}, {"meta": {"image_id": "7"}}], "record 1: image_id 7 has an answer already"),
        ([{"meta": {"image_id": 7}, "truth": {"question": "?"}}], "meta['image_id'] must be the image's name, got 7"),
        ([{"meta": {"image_id": 7}, "truth": {"boxes": [[0, 0, 1, 1]]}}], "record 0: its truth has 'boxes'"),
    ],
)
def test_records_that_make_no_challenge_file_are_named(tmp_path, capsys, rows, message):
    folder = _run(tmp_path / "run", [{"pred": "x", **row} for row in rows])
    _fails(capsys, message, folder, "--challenge", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_one_set_is_written_whole(tmp_path, capsys):
    rows = [{"pred": "x", "meta": {"image_id": index}} for index in range(3)]
    folder = _run(tmp_path / "run", rows, ("eval", "test"))
    _fails(capsys, "--challenge takes one set and", folder, "--challenge", tmp_path / "out.json")
    assert len(_challenge(folder, "--set", "test")) == 3
    capsys.readouterr()
    path = folder / "test_predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    _fails(capsys, "1 missing (0)", folder, "--set", "test", "--challenge", tmp_path / "out.json")


def test_it_goes_with_a_run_alone(tmp_path, capsys):
    _fails(capsys, "--challenge goes with RUN_DIR", "--compare", "a", "b", "--challenge", tmp_path / "out.json")
    folder = _run(tmp_path / "run", [{"pred": "x", "meta": {"image_id": 1}}])
    _fails(capsys, "--challenge goes with RUN_DIR", folder, "--json", "x", "--challenge", tmp_path / "out.json")
    _fails(capsys, "--challenge '", folder, "--challenge", tmp_path)
