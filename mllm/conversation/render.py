"""Segments: a rendered conversation as a list of text, control tokens and images, with the answers marked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mllm.errors import DataError
from mllm.structures import IMAGE_PLACEHOLDER, Turn, split_placeholders


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation.

    ``kind`` is "text", "special" (a control token of the template, by its string) or "image". ``trained`` marks
    answers and their end marks, ``answer`` the text of an answer. No token reaches across the start of a segment with
    ``boundary``: generation begins at such a place, or a question follows an end mark there.
    """

    kind: str
    text: str
    trained: bool = False
    answer: bool = False
    boundary: bool = False


def exchanges(turns: Sequence[Turn], *, generation: bool) -> list[tuple[str, str | None]]:
    """Pairs (question, answer); None stands for the answer to be generated. DataError unless roles alternate."""
    if not turns:
        raise DataError("a conversation without turns cannot be rendered")
    for number, turn in enumerate(turns):
        expected = "human" if number % 2 == 0 else "gpt"
        if turn.role != expected:
            raise DataError(
                f"conversations[{number}]: from {turn.role!r}, expected {expected!r}: turns alternate from human"
            )
    if generation and turns[-1].role == "gpt":
        turns = turns[:-1]
    answers: list[str | None] = [turn.text.strip() for turn in turns[1::2]]
    answers += [None] * (len(turns) % 2)
    return list(zip([turn.text for turn in turns[0::2]], answers, strict=True))


def question_segments(text: str) -> list[Segment]:
    """A human turn: text, and an image at each ``<image>``."""
    pieces = split_placeholders(text, IMAGE_PLACEHOLDER)
    return [Segment("image" if piece == IMAGE_PLACEHOLDER else "text", piece) for piece in pieces]


def template_segments(text: str, controls: Iterable[str]) -> list[Segment]:
    """Text that a template wrote: the strings in ``controls`` are control tokens, the longest first."""
    present = sorted((token for token in controls if token and token in text), key=len, reverse=True)
    if not present:
        return [Segment("text", text)] if text else []
    pieces = re.split("(" + "|".join(map(re.escape, present)) + ")", text)
    return [Segment("special" if i % 2 else "text", piece) for i, piece in enumerate(pieces) if piece]


def reply_segments(gap: str, answer: str, end: Sequence[Segment], *, trained: bool) -> list[Segment]:
    """What follows a generation prompt: the gap before the answer, the answer, its end mark."""
    segments = [Segment("text", gap)] if gap else []
    if answer:
        segments.append(Segment("text", answer, trained=trained, answer=True))
    segments += [replace(one, trained=trained) for one in end]
    return at_boundary(segments)


def at_boundary(segments: Sequence[Segment]) -> list[Segment]:
    """The same segments, the first of them marked as one that no token may reach into from the left."""
    return [replace(segment, boundary=True) if i == 0 else segment for i, segment in enumerate(segments)]


def rendered_text(segments: Iterable[Segment]) -> str:
    """The conversation as one string, for people, hashes and tests."""
    return "".join(segment.text for segment in segments)


def trained_text(segments: Iterable[Segment]) -> str:
    """The answers with their end marks as one string."""
    return "".join(segment.text for segment in segments if segment.trained)
