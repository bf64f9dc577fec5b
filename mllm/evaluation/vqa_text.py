"""The forms in which VQA's official evaluation and MMF's m4c compare two answers.

Rules of github GT-Vision-Lab/VQA (``PythonEvaluationTools/vqaEvaluation/vqaEval.py``, told on
visualqa.org/evaluation.html) and of ``EvalAIAnswerProcessor`` in github facebookresearch/mmf, which haotian-liu/LLaVA
scores TextVQA with.
"""

from __future__ import annotations

import re
from functools import lru_cache

ARTICLES = frozenset(("a", "an", "the"))
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0", **{word: str(value) for value, word in enumerate(NUMBERS)}}
PUNCTUATION = frozenset(';/[]"{}()=+\\_-><@`,?!')
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CACHED = 1 << 16
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
# The authors' call passes re.UNICODE, which is 32, where re.sub takes the number of replacements.
_STOPS = int(re.UNICODE)


def _misspelled() -> dict[str, str]:
    """Each contraction with one of its apostrophes forgotten → the contraction."""
    table = {
        word[:place] + word[place + 1 :]: word
        for word in CONTRACTED.split()
        for place, character in enumerate(word)
        if character == "'"
    }
    # The one entry of the authors' table that takes an apostrophe out.
    return {**table, "somebody'd": "somebodyd"}


CONTRACTIONS = _misspelled()


def cleaned(text: str) -> str:
    """Line breaks and tabulators as spaces, ends stripped: all that every answer undergoes."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(CACHED)
def official_form(text: str) -> str:
    """Punctuation, number words, articles and contractions after the rules of the VQA evaluation.

    A punctuation mark is deleted where any of its kind stands beside a space or any comma between two digits, else it
    becomes a space; apostrophe and colon stay. A full stop is deleted unless a digit follows.
    """
    return _words(_without_punctuation(cleaned(text)))


@lru_cache(CACHED)
def m4c_form(text: str) -> str:
    """As ``official_form``, but commas and question marks are deleted first and ``'s`` is a word of its own."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _words(_without_punctuation(cleaned(text)))


def _without_punctuation(text: str) -> str:
    has_number = _DIGIT_COMMA_DIGIT.search(text) is not None
    table = {
        ord(mark): "" if has_number or f"{mark} " in text or f" {mark}" in text else " "
        for mark in PUNCTUATION.intersection(text)
    }
    return _STOP.sub("", text.translate(table), count=_STOPS)


def _words(text: str) -> str:
    digits = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in digits if word not in ARTICLES)
