"""``mllm check``: every fault of the data is found at its place before a run, a clean config passes."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import types

import pytest
import tiny
from launch import environment
from PIL import Image

from mllm.cli.main import main
from mllm.dataset.mixture import sources_of
from mllm.dataset.problems import KINDS
from mllm.dataset.regions import RECDataset
from mllm.pipeline import check_rows
from mllm.registry import DATASETS

ASK = {"from": "human", "value": "<image> where is it ?"}
TURNS = [ASK, {"from": "gpt", "value": "<boxes>", "boxes_seq": [[0]]}]


def said(answer, question="<image> what is it ?"):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def noise(path, seed, size=(64, 48), **options):
    pixels = random.Random(seed).randbytes(size[0] * size[1] * 3)
    Image.frombytes("RGB", size, pixels).save(path, **options)


class Desk:
    """A folder with pictures of which no two are alike, annotation files and a config."""

    def __init__(self, folder):
        self.folder = folder
        self.pictures = 0

    def picture(self, name=None, **options):
        self.pictures += 1
        name = name or f"{self.pictures}.png"
        noise(self.folder / name, self.pictures, **options)
        return name

    def item(self, **changes):
        boxes = [[self.pictures % 20 + 30, 2, 60, 40]]
        return {"image": self.picture(), "target": {"boxes": boxes}, "conversations": TURNS, **changes}

    def rows(self, *rows, name="train.jsonl"):
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        (self.folder / name).write_text(text)
        return {"type": "ItemJsonl", "path": str(self.folder / name), "image_root": str(self.folder)}

    def config(self, train, *, conversation=None, **data_args):
        data = {"train": train, "validation": None, "test": None, **data_args}
        changed = {**tiny.CONVERSATION, **(conversation or {})}
        path = self.folder / "run.py"
        path.write_text(tiny.config_text(self.folder / "out", data_args=data, conversation=changed))
        return str(path)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


@pytest.fixture
def check(capsys):
    """Run the verb: exit code and the result as JSON."""

    def run(config, *words):
        code = main(["check", config, "--json", "--workers", "1", *map(str, words)])
        written = capsys.readouterr()
        assert code in (0, 1), written.err
        return code, json.loads(written.out) if written.out else written.err

    return run


def problems(result, source="train/ItemJsonl"):
    (found,) = [one for one in result["sources"] if one["source"] == source]
    return {one["problem"]: one for one in found["problems"]}


def test_clean_data_passes_without_a_word(desk, check, capsys):
    train = desk.rows(*(desk.item() for _ in range(5)))
    held_out = {"dataset": desk.rows(desk.item(), name="test.jsonl"), "evaluators": tiny.EVALUATORS}
    config = desk.config(train, test=held_out, multitest={"more": held_out})
    code, result = check(config)
    assert (code, result["passes"]) == (0, True)
    assert [(one["source"], one["rows"], one["problems"]) for one in result["sources"]] == [
        ("train/ItemJsonl", 5, []),
        ("test/ItemJsonl", 1, []),
        ("multitest.more/ItemJsonl", 1, []),
    ]
    assert main(["check", config, "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == ("no problem in 7 rows of 3 sources: a run would lose no row.")


def _truncated(desk):
    desk.picture("cut.jpg", quality=95)
    path = desk.folder / "cut.jpg"
    path.write_bytes(path.read_bytes()[:-2000])
    return desk.item(image="cut.jpg")


def _rotten(desk):
    """Complete by its end mark; the pixels in its middle are gone."""
    buffer = io.BytesIO()
    noise(buffer, 1, format="PNG")
    content = bytearray(buffer.getvalue())
    content[2000:3000] = bytes(1000)
    (desk.folder / "rotten.png").write_bytes(content)
    return desk.item(image="rotten.png")


def _turned(desk):
    exif = Image.Exif()
    exif[0x0112] = 6
    return desk.item(image=desk.picture("turned.jpg", exif=exif))


def _huge(desk):
    """A header alone: nobody decodes it to find out."""
    buffer = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(buffer, "PNG")
    (desk.folder / "huge.png").write_bytes(buffer.getvalue())
    return desk.item(image="huge.png")


def _text_file(desk):
    (desk.folder / "text.png").write_text("404")
    return desk.item(image="text.png")


def _misnamed(desk):
    noise(desk.folder / "misnamed.jpg", 7, format="PNG")
    return desk.item(image="misnamed.jpg")


def _boxes(*boxes):
    return lambda desk: desk.item(target={"boxes": [list(box) for box in boxes]})


def _turns(*turns):
    return lambda desk: desk.item(conversations=list(turns))


def _points(*points):
    turns = [ASK, {"from": "gpt", "value": "<points>", "points_seq": [[0]]}]
    return lambda desk: desk.item(target={"points": [list(point) for point in points]}, conversations=turns)


TWO = {"from": "gpt", "value": "<boxes> and <boxes>", "boxes_seq": [[0]]}
FAULTS = {
    "broken JSON": (lambda d: '{"image": "a.png",', "unreadable row", ":2"),
    "no conversation": (lambda d: {"image": d.picture()}, "unreadable row", ":2:conversations"),
    "misspelt key": (lambda d: {**d.item(), "targets": {}}, "unreadable row", ":2"),
    "three numbers": (_boxes([1, 2, 3]), "unreadable row", ":2:target.boxes[0]"),
    "missing image": (lambda d: d.item(image="gone.png"), "missing file", ":2:image"),
    "image elsewhere": (lambda d: d.item(image="../a.png"), "path outside its folder", ":2:image"),
    "text for an image": (_text_file, "broken image", ":2:image"),
    "truncated image": (_truncated, "broken image", ":2:image"),
    "turned image": (_turned, "turned image", ":2:image"),
    "huge image": (_huge, "huge image", ":2:image"),
    "wrong extension": (_misnamed, "wrong extension", ":2:image"),
    "two human turns": (_turns(ASK, {**ASK, "value": "and ?"}), "turns", ":2:conversations[1]"),
    "two boxes, one list": (_turns(ASK, TWO), "placeholders", ":2:conversations[1]"),
    "index out of range": (
        _turns(ASK, {**TURNS[1], "boxes_seq": [[1]]}),
        "placeholders",
        ":2:conversations[1].boxes_seq",
    ),
    "image not given": (lambda d: {"conversations": said("a dog")}, "placeholders", ":2"),
    "boxes on no image": (
        lambda d: {"conversations": said("a", "b"), "target": {"boxes": [[1, 2, 3, 4]]}},
        "target",
        ":2",
    ),
    "box outside": (_boxes([1, 2, 300, 40]), "outside the image", ":2:target.boxes[0]"),
    "point outside": (_points([65.5, 3]), "outside the image", ":2:target.points[0]"),
    "reversed box": (_boxes([50, 2, 40, 40]), "reversed box", ":2:target.boxes[0]"),
    "xywh box": (_boxes([40, 20, 10, 12]), "looks like xywh", ":2:target.boxes[0]"),
    "normalised box": (_boxes([0.1, 0.2, 0.5, 0.6]), "normalised box", ":2:target.boxes[0]"),
    "normalised point": (_points([0.4, 0.5]), "normalised point", ":2:target.points[0]"),
    "box without area": (_boxes([40, 30, 40, 47]), "empty box", ":2:target.boxes[0]"),
    "empty answer": (_turns(*said(" ")), "nothing trained", ":2:conversations[1]"),
    "long answer": (_turns(*said("a long story " * 200)), "cut by max_length", ":2:conversations[1]"),
    "long question": (_turns(*said("yes", "<image> " + "why so " * 200)), "nothing trained", ":2:conversations[1]"),
    "late image": (_turns(*said("yes", "why so " * 200 + "<image>")), "cannot be encoded", ":2"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named_at_its_place(desk, check, name):
    make, kind, place = FAULTS[name]
    train = desk.rows(desk.item(), make(desk), desk.item())
    code, result = check(desk.config(train))
    found = problems(result)
    assert found[kind]["rows"] == 1
    assert found[kind]["first"][0]["place"] == f"{desk.folder}/train.jsonl{place}"
    assert found[kind]["severity"] == KINDS[kind].severity
    assert found[kind]["first"][0]["message"]
    alone = {kind} | ({"reversed box"} if kind == "looks like xywh" else set())
    assert set(found) == alone
    fails = any(one["severity"] == "error" for one in found.values())
    assert code == fails


def test_all_faults_of_a_row_are_named(desk, check):
    row = desk.item(target={"boxes": [[1, 2, 300, 40], [5, 5, 2, 2], [3, 3, 3, 9]]}, conversations=[ASK, TWO])
    _, result = check(desk.config(desk.rows(desk.item(), row)))
    assert set(problems(result)) == {
        "placeholders",
        "outside the image",
        "reversed box",
        "looks like xywh",
        "empty box",
    }
    assert result["sources"][0]["failed"] == 1


def test_pixels_are_decoded_on_request(desk, check):
    config = desk.config(desk.rows(desk.item(), _rotten(desk)))
    assert check(config)[0] == 0
    code, result = check(config, "--decode")
    assert code == 1
    assert problems(result)["broken image"]["first"][0]["place"].endswith("train.jsonl:2:image")


def test_tokens_that_do_not_read_as_the_answers_are_found(desk, check, monkeypatch):
    encoding = sys.modules["mllm.conversation.encode"]
    monkeypatch.setattr(encoding, "supervised_text", lambda encoded, tokenizer: ["something else"])
    code, result = check(desk.config(desk.rows(desk.item()), on_error="replace"))
    found = problems(result)["supervision"]
    assert code == 1
    assert "the trained tokens read 'something else'" in found["first"][0]["message"]


def test_a_data_set_that_raises_anything_is_named_and_no_budget_helps(desk, check, monkeypatch):
    class Wild:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                raise KeyError("left")
            return {"conversations": said(f"number {index}", "which ?")}

    monkeypatch.setitem(DATASETS._module_dict, "Wild", Wild)
    code, result = check(desk.config({"type": "Wild"}, on_error="replace"))
    found = problems(result, "train/Wild")
    assert code == 1
    assert found["crash"]["first"] == [{"place": "Wild[1]", "message": "KeyError: 'left'"}]
    assert "a run would stop" in result["summary"]


def test_rows_that_train_the_same_are_duplicates(desk, check):
    row, other = desk.item(), desk.item()
    copy = {**row, "meta": {"id": "another"}}
    content = (desk.folder / row["image"]).read_bytes()
    (desk.folder / "renamed.png").write_bytes(content)
    train = desk.rows(row, other, copy, {**row, "conversations": said("a dog")}, {**row, "image": "renamed.png"})
    code, result = check(desk.config(train))
    found = problems(result)["duplicate"]
    assert code == 0
    assert found["rows"] == 2
    assert [one["place"].rpartition("/")[2] for one in found["first"]] == ["train.jsonl:3", "train.jsonl:5"]
    assert found["first"][0]["message"].endswith("train.jsonl:1")


@pytest.mark.parametrize("truth", [True, False])
def test_a_drawn_question_does_not_hide_a_duplicate(desk, check, monkeypatch, truth):
    if not truth:
        whole = RECDataset.build
        monkeypatch.setattr(RECDataset, "build", lambda *given: {**whole(*given), "truth": {}})
    name = desk.picture()
    row = {"img_path": name, "expression": "the dog", "bbox": [40, 2, 60, 40]}
    train = {**desk.rows(*[row] * 5, {**row, "expression": "the cat"}), "type": "RECJsonl"}
    _, result = check(desk.config(train))
    assert problems(result, "train/RECJsonl")["duplicate"]["rows"] == 4


def test_an_image_in_train_and_in_a_test_set_is_found_by_its_content(desk, check):
    row = desk.item()
    (desk.folder / "other_name.png").write_bytes((desk.folder / row["image"]).read_bytes())
    held_out = desk.rows(desk.item(), desk.item(image="other_name.png"), name="test.jsonl")
    test = {"dataset": held_out, "evaluators": tiny.EVALUATORS}
    code, result = check(desk.config(desk.rows(desk.item(), row), test=test))
    assert code == 0
    assert problems(result) == {}
    found = problems(result, "test/ItemJsonl")["image also in train"]
    assert found["rows"] == 1
    assert found["first"][0]["place"] == f"{desk.folder}/test.jsonl:2:image"
    assert found["first"][0]["message"] == f"is shown by {desk.folder}/train.jsonl:2"


def test_a_source_whose_boxes_all_fit_as_xywh_is_suspected(desk, check):
    """x = 5 + i, width 30: as xyxy right of the left side, so no row by itself is strange."""
    rows = [desk.item(target={"boxes": [[i % 25, 5, 30, 20]]}) for i in range(20)]
    _, result = check(desk.config(desk.rows(*rows)))
    found = problems(result)["looks like xywh"]
    assert (found["rows"], found["share"], found["severity"]) == (20, 1.0, "warning")


class Budget:
    """Eight good rows and two that cannot be read; two epochs replace four samples."""

    CASES = (
        ({}, 1, "data_args.on_error is 'raise'"),
        ({"on_error": "replace"}, 0, "about 4 samples; data_args.error_budget sets no limit"),
        ({"on_error": "replace", "error_budget": 4}, 0, "error_budget allows 4"),
        ({"on_error": "replace", "error_budget": 3}, 1, "error_budget allows 3"),
    )


@pytest.mark.parametrize(("data_args", "code", "sentence"), Budget.CASES)
def test_the_exit_code_follows_the_budget(desk, check, data_args, code, sentence):
    rows = [desk.item() for _ in range(8)] + [desk.item(image="gone.png")] * 2
    config = desk.config(desk.rows(*rows), **data_args)
    found, result = check(config, "--max_steps", "-1", "--num_train_epochs", "2")
    assert (found, result["passes"]) == (code, code == 0)
    assert set(problems(result)) == {"missing file"}  # rows that fail are no duplicates of each other
    assert sentence in result["summary"]


def test_steps_count_as_epochs(desk, check):
    """10 steps of 4 samples over 10 rows are 4 epochs: 2 lost rows are 8 samples."""
    rows = [desk.item() for _ in range(8)] + [desk.item(image="gone.png")] * 2
    config = desk.config(desk.rows(*rows), on_error="replace", error_budget=7)
    code, result = check(config, "--max_steps", "10")
    assert code == 1
    assert "a run of 4 epochs would replace about 8 samples" in result["summary"]


def test_evaluation_may_lose_no_row(desk, check):
    test = {
        "dataset": desk.rows(desk.item(), desk.item(image="gone.png"), name="t.jsonl"),
        "evaluators": tiny.EVALUATORS,
    }
    code, result = check(desk.config(desk.rows(desk.item()), test=test, on_error="replace"))
    assert code == 1
    assert "rows of test/ItemJsonl would score 0" in result["summary"]


def test_a_source_without_a_readable_row_stops_a_run(desk, check):
    train = {
        "type": "ConcatDataset",
        "datasets": [desk.rows(desk.item()), desk.rows(desk.item(image="x"), name="b.jsonl")],
    }
    code, result = check(desk.config(train, on_error="replace"))
    assert code == 1
    assert "no row of train/ItemJsonl b.jsonl is readable" in result["summary"]


def test_a_mixture_is_told_by_its_sources_each_row_once(desk, check):
    one = desk.rows(desk.item(), desk.item(image="gone.png"), desk.item())
    subset = {
        "type": "SubsetDataset",
        "dataset": desk.rows(*(desk.item() for _ in range(9)), name="b.jsonl"),
        "count": 4,
    }
    train = {"type": "ConcatDatasetWithShuffle", "datasets": [one, subset], "portions": [3, 1]}
    _, result = check(desk.config(train, on_error="replace"), "--max_steps", "-1", "--num_train_epochs", "1")
    told = [(one["source"], one["rows"], one["checked"], one["failed"]) for one in result["sources"]]
    assert told == [("train/ItemJsonl train.jsonl", 3, 3, 1), ("train/ItemJsonl b.jsonl", 4, 4, 0)]
    assert problems(result, "train/ItemJsonl train.jsonl")["missing file"]["rows"] == 1
    # The repeated source is drawn 9 times an epoch: the row that fails 3 times.
    assert "would replace about 3 samples" in result["summary"]


def test_a_sample_of_rows_is_spread_evenly(desk, check, monkeypatch):
    seen = []
    whole = check_rows.check_row
    monkeypatch.setattr(check_rows, "check_row", lambda d, i, **o: seen.append(i) or whole(d, i, **o))
    config = desk.config(desk.rows(*(desk.item() for _ in range(10))))
    _, result = check(config, "--rows", "4")
    assert seen == [0, 2, 5, 7]
    assert (result["sources"][0]["rows"], result["sources"][0]["checked"]) == (10, 4)
    assert "4 of 10 rows" in result["summary"]


def test_the_number_of_workers_changes_nothing(desk, monkeypatch, capsys):
    monkeypatch.setattr(check_rows, "CHUNK", 3)
    twin = desk.item()
    rows = [make(desk) for make, _, _ in FAULTS.values()] + [twin, twin] + [desk.item() for _ in range(4)]
    config = desk.config(desk.rows(*rows))
    written = []
    for workers in ("1", "3"):
        assert main(["check", config, "--json", "--workers", workers]) == 1
        written.append(capsys.readouterr().out)
    assert written[0] == written[1]
    assert {one["problem"] for one in json.loads(written[0])["sources"][0]["problems"]} >= {
        kind for _, kind, _ in FAULTS.values()
    }


def test_the_clean_copy_builds_and_checks_clean(desk, check):
    rows = [desk.item(), *(make(desk) for make, _, _ in FAULTS.values()), desk.item()]
    train = desk.rows(*rows)
    before = {path: path.stat().st_mtime_ns for path in desk.folder.iterdir()}
    config = desk.config(train)
    _, result = check(config, "--fix", desk.folder / "clean")
    copy = result["copies"]["train/ItemJsonl"]
    good = len(rows) - result["sources"][0]["failed"]
    assert len(DATASETS.build(copy)) == good
    code, again = check(desk.config(copy))
    assert code == 0
    assert again["sources"][0]["failed"] == 0
    assert {one["severity"] for one in again["sources"][0]["problems"]} == {"warning"}
    log = (desk.folder / "clean" / "dropped.log").read_text().splitlines()
    assert len({line.split("\t")[1].split(":")[1] for line in log}) == len(rows) - good
    assert any(line.split("\t")[1:3] == [f"{desk.folder}/train.jsonl:6:image", "missing file"] for line in log)
    after = {path: path.stat().st_mtime_ns for path in before if path.name != "run.py"}
    assert after == {path: time for path, time in before.items() if path.name != "run.py"}


def test_a_copied_item_is_the_item(desk, check):
    item = desk.item(truth={"boxes": [[1, 2, 3, 4]]}, meta={"image_id": 7})
    config = desk.config(desk.rows(item, desk.item(image=None, target={}, conversations=said("yes", "is it ?"))))
    _, result = check(config, "--fix", desk.folder / "clean")
    dataset = DATASETS.build(result["copies"]["train/ItemJsonl"])
    copied = dataset[0]
    assert copied["images"][0].tobytes() == Image.open(desk.folder / item["image"]).tobytes()
    assert {key: copied[key] for key in ("target", "conversations", "truth")} == {
        key: item[key] for key in ("target", "conversations", "truth")
    }
    assert copied["meta"]["image_id"] == 7
    assert copied["meta"]["origin"] == f"{desk.folder}/train.jsonl:1"
    assert "images" not in dataset[1]


def test_drawn_images_are_written_into_the_copy(desk, check):
    drawn = DATASETS.build({**tiny.REC, "count": 2})
    _, result = check(desk.config({**tiny.REC, "count": 2}), "--fix", desk.folder / "clean")
    copied = DATASETS.build(result["copies"]["train/DrawnREC"])
    assert [copied[i]["images"][0].tobytes() for i in range(2)] == [drawn[i]["image"].tobytes() for i in range(2)]


def test_no_folder_is_overwritten(desk, check):
    (desk.folder / "clean").mkdir()
    (desk.folder / "clean" / "mine.txt").write_text("x")
    code, error = check(desk.config(desk.rows(desk.item())), "--fix", desk.folder / "clean")
    assert code == 1
    assert "exists and is not empty" in error


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"trian": {}}, [], "data_args has no 'trian'; did you mean 'train'"),
        ({"error_budget": "many"}, [], "error_budget='many'; expected a whole number"),
        ({"on_error": "skip"}, [], "on_error='skip'; known: raise, replace"),
        ({"test": {"dataset": tiny.REC}}, [], "data_args.test: 'evaluators' is missing"),
        ({"train": {**tiny.REC, "cuont": 3}}, [], "did you mean 'count'"),
        ({"train": None}, [], "data_args.train is not set but do_train is"),
        ({}, ["--do_predict"], "data_args.test is not set"),
        ({}, ["--eval_strategy", "steps", "--eval_steps", "1"], "data_args.validation is not set"),
        ({}, ["--eval_strategy", "sometimes"], "sometimes"),
        ({}, ["--metric_for_best_model", "acc@0.6"], "is no declared metric"),
        ({}, ["--cfg-options", "conversation.transforms=[{'type':'SquareCanvas'}]"], "Resize"),
    ],
)
def test_a_wrong_config_is_the_sentence_of_a_run(desk, capsys, changes, words, message):
    config = desk.config(**{"train": {**tiny.REC, "count": 3}, **changes})
    assert main(["check", config, "--workers", "1", *words]) in (1, 2)
    written = capsys.readouterr()
    assert message in written.err
    assert written.err.count("mllm: error: ") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "0"], "at least 1"),
        (["--workers", "0"], "at least 1"),
        (["--rows", "3", "--fix", "x"], "leave out --rows"),
    ],
)
def test_a_wrong_word_is_a_usage_error(desk, capsys, words, message):
    assert main(["check", desk.config(tiny.REC), *words]) == 2
    assert message in capsys.readouterr().err


def test_the_table_tells_counts_shares_places_and_sentences(desk, capsys):
    good = [desk.item() for _ in range(8)]
    config = desk.config(desk.rows(*good, desk.item(image="gone.png"), desk.item(target={"boxes": [[9, 9, 9, 20]]})))
    assert main(["check", config, "--workers", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["train/ItemJsonl", "10", "missing", "file", "error", "1", "10.0%", lines[2].split()[-1]]
    assert lines[2].endswith("train.jsonl:9:image")
    assert lines[3].split()[:5] == ["empty", "box", "warning", "1", "11.1%"]  # of the nine rows that have boxes
    assert f"missing file: {desk.folder}/train.jsonl:9:image: {desk.folder}/gone.png: no such file" in lines
    assert f"empty box: {desk.folder}/train.jsonl:10:target.boxes[0]: [9.0, 9.0, 9.0, 20.0] has no area" in lines
    assert lines[-1].startswith("1 error and 1 warning in 10 rows of 1 source: a run would stop at the first of them")


def test_every_kind_that_is_raised_is_known():
    import re
    from pathlib import Path

    import mllm

    text = "".join(path.read_text() for path in Path(mllm.__file__).parent.rglob("*.py"))
    raised = set(re.findall(r'kind="([\w ]+)"\)', text)) | set(re.findall(r'row\.find\("([\w ]+)"', text))
    assert raised - {"canvas", "stable"} <= set(KINDS)
    assert len(raised) > 12


def test_results_are_taken_as_they_come_and_a_row_costs_eight_bytes(desk):
    """Of a million rows nothing waits in memory but the window of the workers, and the columns to compare rows by."""
    waiting, most = 0, 0

    class Pool:
        def submit(self, work, number, start):
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            return types.SimpleNamespace(result=lambda: start)

    found = []
    for start in check_rows._in_order(Pool(), ((0, i) for i in range(100)), ahead=8):
        found.append(start)
        waiting -= 1
    assert found == list(range(100))
    assert most == 8
    source = next(sources_of(DATASETS.build(desk.rows(desk.item(), desk.item()))))
    chunk = check_rows.RowChecker([check_rows.CheckedSource("x", "x", source, range(2))], tiny.processor()).chunk(0, 0)
    assert (chunk.keys.nbytes, chunk.image_keys.nbytes, chunk.image_rows.nbytes) == (16, 16, 16)
    assert not chunk.lines


MANY_ROWS = """
import os


class ManyRows:
    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        os.write(1, b"reading\\n")
        turns = [{"from": "human", "value": f"{index} ?"}, {"from": "gpt", "value": "yes"}]
        return {"conversations": turns}
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_ctrl_c_ends_it_with_its_workers(desk, number, code):
    """The output ends when the last process that writes into it does; SIGKILL reaches the parent alone."""
    (desk.folder / "many_rows.py").write_text(MANY_ROWS)
    config, copy = desk.config({"type": "many_rows.ManyRows"}), desk.folder / "clean"
    child = subprocess.Popen(
        [sys.executable, "-m", "mllm.cli.main", "check", config, "--workers", "2", "--fix", str(copy)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    for _ in range(2 * check_rows.CHUNK):  # by then the workers are at it
        assert child.stdout.readline() == "reading\n"
    (os.kill if number == signal.SIGKILL else os.killpg)(child.pid, number)
    try:
        _, error = child.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    assert child.returncode == code, error
    if number == signal.SIGINT:
        assert error.strip().endswith("mllm: interrupted")
        assert "Traceback" not in error
        assert list(copy.iterdir()) == []
