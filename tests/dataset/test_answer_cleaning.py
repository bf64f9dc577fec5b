import pytest

from mllm.dataset.answer_cleaning import clean
from mllm.registry import DATASETS


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("The dog is on the grass.", "dog grass"),
        ("It's a Red, round ball!", "Red round ball"),  # "Its" and "a" are stop words, case is kept
        ("I don't know", "dont know"),
        ("the", "the"),  # nothing would be left
        ("Two dogs <boxes> and a cat <boxes>.", "Two dogs <boxes> cat <boxes>"),
        ("Straße, naïve; 3.5", "Straße naïve 35"),
    ],
)
def test_punctuation_and_stop_words_are_dropped(answer, cleaned):
    assert clean(answer) == cleaned


def test_stop_words_can_be_kept():
    assert clean("The dog is here.", stop_words=False) == "The dog is here"


def test_questions_and_references_are_left_alone():
    source = {"type": "DrawnGroundedCaption", "count": 3}
    cleaned = DATASETS.build({"type": "CleanAnswers", "dataset": source})
    plain = DATASETS.build(source)
    for index in range(3):
        ours, theirs = cleaned.item(index), plain[index]
        before, after = theirs["conversations"], ours["conversations"]
        assert after[0] == before[0]
        assert after[1]["value"] == clean(before[1]["value"])
        assert after[1]["value"].count("<boxes>") == before[1]["value"].count("<boxes>")
        assert ours.get("truth") == theirs.get("truth")
