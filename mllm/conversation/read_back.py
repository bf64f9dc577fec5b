"""Ids and labels → text again, for people: what the model reads, and which part of it bears loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from mllm.conversation.encode import IGNORE_INDEX
from mllm.structures import IMAGE_PLACEHOLDER


@dataclass(frozen=True)
class Span:
    """A run of ``tokens`` ids of one ``kind``: "prompt", "trained" (its labels bear loss) or "image" (one image)."""

    kind: str
    text: str
    tokens: int


def read_back(
    input_ids: Sequence[int], labels: Sequence[int], tokenizer: Any, *, image_token_id: int, image_tokens: int
) -> list[Span]:
    """The spans of a sample in order; each image is one span that reads ``<image>`` and stands for ``image_tokens``."""
    kinds = [
        "image" if token == image_token_id else "prompt" if label == IGNORE_INDEX else "trained"
        for token, label in zip(input_ids, labels, strict=True)
    ]
    runs = [(kind, len(list(members))) for kind, members in groupby(kinds)]
    spans = []
    for (kind, count), text in zip(runs, _texts(input_ids, [count for _, count in runs], tokenizer), strict=True):
        if kind == "image":
            sizes = [min(image_tokens, count - start) for start in range(0, count, image_tokens)]
            spans += [Span("image", IMAGE_PLACEHOLDER, size) for size in sizes]
        else:
            spans.append(Span(kind, text, count))
    return spans


def _texts(ids: Sequence[int], counts: Sequence[int], tokenizer: Any) -> Iterator[str]:
    """The text of each run as it stands in the whole: decoded alone, a run may lose the blank that begins it."""
    ends, before = [0], ""
    for count in counts:
        ends.append(ends[-1] + count)
    for start, end in pairwise(ends):
        whole = _decode(ids[:end], tokenizer)
        # A character of several bytes that is cut by the end of a run reads otherwise once it is whole.
        yield whole[len(before) :] if whole.startswith(before) else _decode(ids[start:end], tokenizer)
        before = whole


def _decode(ids: Sequence[int], tokenizer: Any) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
