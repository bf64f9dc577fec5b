"""Question template sets: what ships is sound, and a wrong set stops with a sentence that names the place."""

import json
import random
import re
from pathlib import Path

import pytest

from mllm.dataset.questions import QuestionTemplates, shipped_sets
from mllm.errors import ConfigError

PLACEHOLDERS = {
    "rec": ("<expr>", "<image>"),
    "pointing": ("<expr>", "<image>"),
    "reg": ("<objs>", "<image>"),
    "grounded_caption": ("<objs>", "<image>"),
    "detection": ("<category>", "<image>"),
    "vqa": ("<question>", "<image>"),
    "vqa_cot": ("<question>", "<image>"),
    "vqa_gcot": ("<question>", "<image>"),
    "caption": ("<image>",),
    "flickr30k": ("<image>",),
}


@pytest.mark.parametrize("name", sorted(PLACEHOLDERS))
def test_shipped_sets_have_20_to_50_sentences_with_each_placeholder_once(name):
    assert 20 <= len(QuestionTemplates(name, PLACEHOLDERS[name])) <= 50


def test_every_set_that_ships_is_known_to_this_page():
    assert set(PLACEHOLDERS) == set(shipped_sets())


@pytest.mark.parametrize("name", sorted(PLACEHOLDERS))
def test_no_sentence_of_a_shipped_set_repeats_another_but_for_case_blanks_and_punctuation(name):
    sentences = QuestionTemplates(name, PLACEHOLDERS[name]).sentences
    bare = [re.sub(r"[^a-z<>]", "", sentence.lower()) for sentence in sentences]
    assert [sentence for sentence, one in zip(sentences, bare, strict=True) if bare.count(one) > 1] == []


@pytest.mark.parametrize("name", sorted(PLACEHOLDERS))
def test_sentences_of_a_shipped_set_are_tidy_and_hold_no_other_placeholder(name):
    for sentence in QuestionTemplates(name, PLACEHOLDERS[name]).sentences:
        assert sentence == " ".join(sentence.split())
        assert sorted(re.findall("<[^>]*>", sentence)) == sorted(PLACEHOLDERS[name])


@pytest.mark.parametrize("name", sorted(PLACEHOLDERS))
def test_the_image_stands_first_and_elsewhere(name):
    sentences = QuestionTemplates(name, PLACEHOLDERS[name]).sentences
    first = [sentence.startswith("<image>") for sentence in sentences]
    assert any(first)
    assert not all(first)


def test_the_readme_lists_every_shipped_set_with_its_length():
    readme = (Path(__file__).parents[2] / "mllm" / "dataset" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ((?:`<\w+>` ?)+) \|.*\| (\d+) \|$", readme, flags=re.M)
    listed = {name: (tuple(re.findall("<.*?>", placeholders)), int(count)) for name, placeholders, count in rows}
    assert listed == {name: (one, len(QuestionTemplates(name, one))) for name, one in PLACEHOLDERS.items()}


def test_a_sentence_a_list_and_a_file_are_taken(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(["<image> a <expr>", "<image> b <expr>"]), encoding="utf-8")
    assert QuestionTemplates("<image> x <expr>", PLACEHOLDERS["rec"]).sentences == ["<image> x <expr>"]
    assert len(QuestionTemplates(["<image> x <expr>", "y <expr> <image>"], PLACEHOLDERS["rec"])) == 2
    assert len(QuestionTemplates(str(path), PLACEHOLDERS["rec"])) == 2


def test_fill_leaves_braces_percent_signs_and_other_placeholders_alone():
    filled = QuestionTemplates.fill("<image> {0} %s <expr>", expr="a {b} 100%")
    assert filled == "<image> {0} %s a {b} 100%"


def test_choice_follows_the_generator_alone():
    templates = QuestionTemplates("rec", PLACEHOLDERS["rec"])
    assert [templates.choose(random.Random(7)) for _ in range(3)] == [templates.choose(random.Random(7))] * 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (["<image> where"], r"questions\[0\]: <expr> stands 0 times"),
        (["<image> <expr>", "<image> <expr> or <expr>"], r"questions\[1\]: <expr> stands 2 times"),
        (["<image> <expr>", "<image> <expr>"], r"questions\[1\]: .* repeats \[0\]"),
        ([], "no question in it"),
        ([3], r"questions\[0\]: a question must be text, got 3"),
        ("reck", "did you mean 'rec'"),
        ("nowhere/set.json", "cannot be read"),
    ],
)
def test_a_wrong_set_stops_with_its_place(spec, message):
    with pytest.raises(ConfigError, match=message):
        QuestionTemplates(spec, PLACEHOLDERS["rec"])


def test_a_file_that_is_no_list_stops(tmp_path):
    path = tmp_path / "set.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected a JSON list"):
        QuestionTemplates(str(path), ("<image>",))
    path.write_text("[", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid JSON"):
        QuestionTemplates(str(path), ("<image>",))
