"""A sentence whose phrases have boxes, and its text with ``<boxes>`` behind all of them, some, or none."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from mllm.structures import BOXES_PLACEHOLDER, Box


@dataclass(frozen=True)
class Phrase:
    """Words of a sentence and the boxes that they mean, as positions in the sentence's ``boxes``; none is allowed."""

    text: str
    boxes: tuple[int, ...] = ()
    chain: str = ""
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroundedSentence:
    """Text pieces and phrases in reading order, and the boxes (xyxy, pixels) that the phrases point to."""

    pieces: tuple[str | Phrase, ...]
    boxes: tuple[Box, ...] = ()
    _grounded: tuple[Phrase, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        grounded = tuple(piece for piece in self.pieces if isinstance(piece, Phrase) and piece.boxes)
        object.__setattr__(self, "_grounded", grounded)

    @property
    def grounded(self) -> tuple[Phrase, ...]:
        """The phrases that have boxes."""
        return self._grounded

    @property
    def text(self) -> str:
        """The sentence without any mark."""
        return "".join(piece if isinstance(piece, str) else piece.text for piece in self.pieces)

    def marked(self, numbers: Container[int] | None = None) -> tuple[str, list[list[int]]]:
        """The sentence with `` <boxes>`` behind grounded phrases, and their ``boxes_seq``.

        ``numbers`` are positions in ``grounded``; None marks all.
        """
        text, sequences, number = [], [], 0
        for piece in self.pieces:
            text.append(piece if isinstance(piece, str) else piece.text)
            if isinstance(piece, Phrase) and piece.boxes:
                if numbers is None or number in numbers:
                    text.append(f" {BOXES_PLACEHOLDER}")
                    sequences.append(list(piece.boxes))
                number += 1
        return "".join(text), sequences

    def truth(self, numbers: Container[int] | None = None) -> dict[str, Any]:
        """The grounded phrases with their boxes, and all these boxes, each once, in pixels; ``numbers`` as above."""
        phrases = [one for number, one in enumerate(self.grounded) if numbers is None or number in numbers]
        used = dict.fromkeys(position for phrase in phrases for position in phrase.boxes)
        return {
            "boxes": [list(self.boxes[position]) for position in used],
            "phrases": [
                {
                    "text": phrase.text,
                    "boxes": [list(self.boxes[position]) for position in phrase.boxes],
                    **({"chain": phrase.chain, "types": list(phrase.types)} if phrase.chain else {}),
                }
                for phrase in phrases
            ],
        }
