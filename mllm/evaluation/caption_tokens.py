"""Captions as tokens: what BLEU, ROUGE-L, METEOR and CIDEr compare."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mllm.evaluation.java_tools import JavaProgram, ptb_tokens

TOKENIZERS = ("auto", "ptb", "plain", "none")
_WORD = re.compile(r"\w+(?:['’.-]\w+)*")


def plain_tokens(texts: Sequence[str]) -> list[str]:
    """Words in lower case, punctuation between them dropped, inside them (``it's``, ``3-year-old``) kept.

    For where Java is missing; its scores are not those of the Penn Treebank tokens.
    """
    return [" ".join(_WORD.findall(text.lower())) for text in texts]


def tokens_of(texts: Sequence[str], tokenizer: str, program: JavaProgram | None = None) -> list[str]:
    """The texts' tokens, joined by spaces: ``"ptb"`` (through ``program`` where one runs), ``"plain"``, or ``"none"``.

    ``"none"`` cuts at white space. JavaProblem where there is no Java.
    """
    if tokenizer == "ptb":
        return ptb_tokens(texts, program)
    return plain_tokens(texts) if tokenizer == "plain" else [" ".join(text.split()) for text in texts]
