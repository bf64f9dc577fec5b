"""What evaluators of short text answers share: the truth's answers, plain forms of a text, checked options."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from mllm.errors import ConfigError, DataError, choices
from mllm.structures import Record

EMPTY = "empty answer"
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def answers_of(record: Record, evaluator: Any, *fields: str) -> list[str]:
    """The texts in the first of ``fields`` that the truth has them in; DataError where it has none.

    A record that could not be generated may lack its truth: its list is empty.
    """
    for name in fields:
        found = record.truth.get(name)
        found = [found] if isinstance(found, str) else found
        if isinstance(found, (list, tuple)) and found and all(isinstance(one, str) for one in found):
            return list(found)
    if record.failure is not None:
        return []
    wanted = " or ".join(repr(name) for name in fields)
    known = ", ".join(sorted(record.truth)) or "nothing"
    name = type(evaluator).__name__
    raise DataError(f"record {record.index}: {name} needs texts in the truth's {wanted}; the truth has {known}")


def check_option(evaluator: Any, name: str, value: Any, known: Sequence[str]) -> None:
    """ConfigError with the known values unless ``value`` is one of them."""
    if value not in known:
        raise ConfigError(f"{type(evaluator).__name__}: {name}={value!r}; {choices(str(value), known)}")


def folded(text: str) -> str:
    """Lower case, runs of white space as one space."""
    return " ".join(text.lower().split())


def without_articles(text: str) -> str:
    """``text`` in lower case without the words a, an, the."""
    return folded(_ARTICLE.sub(" ", text.lower()))


def squad_form(text: str) -> str:
    """Lower case without ASCII punctuation and articles, as SQuAD's evaluation compares (Rajpurkar et al., 2016)."""
    return without_articles(text.lower().translate(_NO_PUNCTUATION))
