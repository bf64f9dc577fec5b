import json

import pytest
from PIL import Image

from mllm.dataset.scienceqa import choices_of, problem_prompt
from mllm.errors import ConfigError, DataError
from mllm.registry import DATASETS
from mllm.structures import Item, check_item


@pytest.fixture
def mini(shared_data):
    return shared_data / "scienceqa_mini"


def official(mini, **options):
    return DATASETS.build(dict(type="ScienceQA", root=str(mini), **options))


def converted(mini, **options):
    return DATASETS.build(dict(type="ScienceQACQMA", path=str(mini / "llava_test_CQM-A.json"), **options))


def checked(raw):
    item = Item.from_dict(raw)
    check_item(item)
    return item


def draw(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9), "white").save(root / name)


def test_a_problem_without_image(mini):
    # Problem 4, the first of test: choices chiasmus and apostrophe, answer 1, no hint, grade11, language science.
    item = checked(official(mini, split="test")[0])
    assert [turn.text for turn in item.conversations] == [
        "Which figure of speech is used in this text?\nSing, O goddess, the anger of Achilles son of Peleus, that "
        "brought countless ills upon the Achaeans.\n—Homer, The Iliad\nA. chiasmus\nB. apostrophe",
        "B",
    ]
    assert item.images == []
    assert item.truth == {"answer": "B", "choices": ["chiasmus", "apostrophe"]}
    expected = {
        "question_id": "4",
        "subject": "LAN",
        "context": ["NO"],
        "grade": "G7-12",
        "topic": "figurative-language",
    }
    assert {key: item.meta[key] for key in expected} == expected
    assert item.meta["category"] == "LAN"


def test_a_problem_with_image_and_context(mini, tmp_path):
    # Problem 7, the second of val: a hint, an image, two choices, answer 1, grade3, natural science.
    draw(tmp_path, "val/7/image.png")
    dataset = official(mini, split="val", image_root=str(tmp_path))
    item = checked(dataset[1])
    text = item.conversations[0].text
    assert text.startswith("<image>\nContext: Sturgeons eat invertebrates, plants, and small fish.")
    assert text.endswith("Which animal's mouth is also adapted for bottom feeding?\nA. discus\nB. armored catfish")
    assert item.images[0].size == (12, 9)
    assert item.meta["context"] == ["TXT", "IMG"]
    assert item.meta["grade"] == "G1-6"
    assert item.meta["subject"] == "NAT"
    assert dataset.length_hint(1)[1] == 1
    assert dataset.length_hint(0)[1] == 0


def test_an_instruction_ends_the_question(mini):
    item = official(mini, split="test", instruction="Answer with the letter.")[0]
    assert item["conversations"][0]["value"].endswith("\nB. apostrophe\nAnswer with the letter.")


def test_problems_are_chosen_by_split_and_image(mini):
    # pid_splits.json: 120 train, 60 val, 120 test, 180 trainval, 8 minitest; 56 of test have an image.
    sizes = {split: len(official(mini, split=split)) for split in ("train", "val", "test", "trainval", "minitest")}
    assert sizes == {"train": 120, "val": 60, "test": 120, "trainval": 180, "minitest": 8}
    assert len(official(mini, split="test", images="with")) == 56
    assert len(official(mini, split="test", images="without")) == 64


@pytest.fixture
def small(tmp_path):
    problem = {
        "question": "Which?",
        "choices": ["x", "y", "z"],
        "answer": 2,
        "hint": "",
        "image": None,
        "grade": "grade6",
        "subject": "social science",
        "topic": "t",
        "lecture": "Look.\nTwice. ",
        "solution": "It is z.",
        "split": "train",
    }

    def make(changed=(), pids=("1",), **options):
        (tmp_path / "problems.json").write_text(json.dumps({"1": {**problem, **dict(changed)}}))
        (tmp_path / "pid_splits.json").write_text(json.dumps({"train": list(pids)}))
        return official(tmp_path, **options)

    return make


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("letter", "C"),
        ("A", "The answer is C."),
        ("ALE", "The answer is C. BECAUSE: Look.\nTwice. It is z."),
        ("LEA", "Look.\nTwice. It is z. The answer is C."),
    ],
)
def test_the_answer_with_and_without_lecture_and_solution(small, answer, expected):
    assert small(answer=answer)[0]["conversations"][1]["value"] == expected


@pytest.mark.parametrize("answer", ["ALE", "LEA"])
def test_without_lecture_and_solution_the_answer_is_the_sentence(small, answer):
    dataset = small({"lecture": "", "solution": " "}, answer=answer)
    assert dataset[0]["conversations"][1]["value"] == "The answer is C."


@pytest.mark.parametrize(("grade", "group"), [("grade1", "G1-6"), ("grade6", "G1-6"), ("grade7", "G7-12")])
def test_grades_are_grouped_as_the_official_table_does(small, grade, group):
    assert small({"grade": grade})[0]["meta"]["grade"] == group


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": 3}, r"problems.json\[1\]: answer 3 is not one of 3 choices"),
        ({"subject": "art"}, r"problems.json\[1\]: subject 'art'; .*known: language science"),
        ({"grade": "11"}, r"problems.json\[1\]: grade '11': expected grade1"),
        ({"image": "image.png"}, r"problems.json\[1\]: .*images/train/1/image.png: no such file"),
    ],
)
def test_a_wrong_problem_is_named(small, changed, message):
    with pytest.raises(DataError, match=message):
        small(changed)[0]


def test_unknown_names_are_errors(small, mini):
    with pytest.raises(ConfigError, match=r"no split 'tets' in .*did you mean 'test'"):
        official(mini, split="tets")
    with pytest.raises(ConfigError, match="answer='LAE'; did you mean"):
        official(mini, answer="LAE")
    with pytest.raises(DataError, match="problem '2' of split 'train' is not in"):
        small(pids=("1", "2"))


def test_both_forms_ask_the_same_questions_with_the_same_answers(mini, tmp_path):
    # LLaVA's file against prompts built from problems.json. Three of the 120 hints differ in the problems file at hand,
    # which another project worked over: 42 and 209 spell out a Punnett square, 332 has a double space.
    rows = json.loads((mini / "llava_test_CQM-A.json").read_text())
    problems = json.loads((mini / "problems.json").read_text())
    theirs = [row["conversations"][0]["value"] for row in rows]
    ours = [problem_prompt(problems[row["id"]]) for row in rows]
    assert sum(one == other for one, other in zip(theirs, ours, strict=True)) == 117
    draw(tmp_path, *(row["image"] for row in rows if "image" in row))
    items = [checked(raw) for raw in converted(mini, image_root=str(tmp_path))]
    assert len(items) == 120
    for item, row in zip(items, rows, strict=True):
        problem = problems[row["id"]]
        assert item.truth["answer"] == "ABCDE"[problem["answer"]]
        assert item.truth["choices"] == problem["choices"]
        assert ("IMG" in item.meta["context"]) == bool(problem["image"])


def test_the_converted_form_takes_categories_from_the_problems_file(mini, tmp_path):
    draw(tmp_path, "5/image.png")
    item = checked(converted(mini, image_root=str(tmp_path), problems=str(mini / "problems.json"))[1])
    # Problem 5: natural science, grade8, hint and image.
    expected = {"subject": "NAT", "grade": "G7-12", "context": ["TXT", "IMG"], "question_id": "5"}
    assert {key: item.meta[key] for key in expected} == expected
    assert item.truth["answer"] == "B"


def test_choices_are_read_with_line_breaks_and_in_brackets():
    # Problem 512 has a choice with a line break; older conversions put the choices into one line.
    assert choices_of("Which?\nA. See you soon,\nJanet\nB. See You Soon,\nJanet") == [
        "See you soon,\nJanet",
        "See You Soon,\nJanet",
    ]
    assert choices_of("Which?\nContext: N/A\nOptions: (A) a b (B) c (C) d") == ["a b", "c", "d"]
    assert choices_of("No choices here") == []


def cqma(tmp_path, question, reply):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]
    (tmp_path / "q.json").write_text(json.dumps([{"id": "9", "conversations": turns}]))
    return DATASETS.build(dict(type="ScienceQACQMA", path=str(tmp_path / "q.json")))


def test_the_letter_is_read_from_a_sentence(tmp_path):
    dataset = cqma(tmp_path, "Which?\nA. x\nB. y", "Because of x, the rest. The answer is A. BECAUSE: so")
    assert dataset[0]["truth"] == {"answer": "A", "choices": ["x", "y"]}


def test_what_holds_no_answer_or_no_choices_is_named(tmp_path):
    with pytest.raises(DataError, match=r"q.json\[0\]: conversations\[-1\]: no letter"):
        cqma(tmp_path, "Which?\nA. x\nB. y", "Both.")[0]
    with pytest.raises(DataError, match=r"q.json\[0\]: no choices in 'Which\?'"):
        cqma(tmp_path, "Which?", "B")[0]
