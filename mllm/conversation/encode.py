"""Segments → ids and labels. Labels follow the tokenizer's offsets; text never yields a control token.

Text is tokenised in pieces that end at control tokens, images and boundaries, so the ids of a generation prompt are
always the beginning of the training ids. A piece within running text is tokenised as such: no dummy prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from mllm.conversation.render import Segment
from mllm.errors import ConfigError, DataError

IGNORE_INDEX = -100
_text_tokenizers: WeakKeyDictionary[Any, dict[Any, TextTokenizer]] = WeakKeyDictionary()


@dataclass
class Encoded:
    """Ids and labels of a conversation; ``answers`` are the token ranges of the trained answers with end marks.

    ``answer_tokens`` counts the trained tokens that hold text of an answer: 0 if only end marks are trained.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool = False
    answers: list[tuple[int, int]] = field(default_factory=list)
    answer_tokens: int = 0

    @property
    def trained_count(self) -> int:
        """How many labels bear loss."""
        return sum(label != IGNORE_INDEX for label in self.labels)


@dataclass
class _Token:
    """One id; ``trained`` holds whether it bears loss, ``answer`` whether it holds text of one."""

    id: int
    reply: int
    trained: bool = False
    answer: bool = False
    image: bool = False


@dataclass
class _Piece:
    """Text that is tokenised in one go; ``spans`` are (start, end, answer) of its trained parts."""

    reply: int
    boundary: bool
    text: str = ""
    spans: list[tuple[int, int, bool]] = field(default_factory=list)

    def add(self, segment: Segment, text: str) -> None:
        start, self.text = len(self.text), self.text + text
        if segment.trained:
            self.spans.append((start, len(self.text), segment.answer))

    def trained_spans(self) -> list[tuple[int, int, bool]]:
        """Spans; white space between a generation prompt and an answer joins it, as the model has to write it."""
        if self.boundary and self.spans and self.spans[0][2] and not self.text[: self.spans[0][0]].strip():
            return [(0, self.spans[0][0], False), *self.spans]
        return self.spans


def encode(
    segments: Sequence[Segment],
    tokenizer: Any,
    *,
    image_token_ids: Sequence[Sequence[int]] = (),
    max_length: int | None = None,
    bos: bool = False,
) -> Encoded:
    """Encode with a fast tokenizer; ``image_token_ids`` are the ids that stand for each image, in order.

    A token is trained if it overlaps an answer or its end mark, or is white space that leads from the generation
    prompt to an answer. ``bos`` puts the tokenizer's first token in front, if it has one. Beyond ``max_length`` the
    tail is cut; DataError if images would be cut.
    """
    count = sum(segment.kind == "image" for segment in segments)
    if count != len(image_token_ids):
        raise DataError(f"{count} images in the text but {len(image_token_ids)} were given")
    tokens = list(_tokens(segments, text_tokenizer(tokenizer, segments), iter(image_token_ids)))
    if bos and tokenizer.bos_token_id is not None and (not tokens or tokens[0].id != tokenizer.bos_token_id):
        tokens.insert(0, _Token(tokenizer.bos_token_id, reply=0))
    length = len(tokens) if max_length is None else max_length
    _check_images_fit(tokens, length)
    return _encoded(tokens[:length], truncated=len(tokens) > length)


def supervised_text(encoded: Encoded, tokenizer: Any) -> list[str]:
    """The decoded trained ids of each answer, end mark included."""
    trained = [
        [label for label in encoded.labels[start:end] if label != IGNORE_INDEX] for start, end in encoded.answers
    ]
    return [_decode(ids, tokenizer) for ids in trained]


def check_supervision(segments: Sequence[Segment], encoded: Encoded, tokenizer: Any) -> None:
    """DataError unless the trained ids decode to the answers with their end marks.

    White space at the ends and what the tokenizer itself changes (case, unknown characters) do not count; of a
    truncated sample the last answer may be cut.
    """
    wanted = [_readings(reply, tokenizer) for reply in _replies(segments)]
    found = [text.strip() for text in supervised_text(encoded, tokenizer)]
    if encoded.trained_count != sum(end - start for start, end in encoded.answers):
        raise DataError("labels bear loss outside the answers", kind="supervision")
    if len(found) > len(wanted) or (len(found) < len(wanted) and not encoded.truncated):
        fault = f"{len(found)} answers are trained, the conversation has {len(wanted)}"
        raise DataError(fault, kind="supervision")
    for number, (text, readings) in enumerate(zip(found, wanted, strict=False)):
        cut = encoded.truncated and number == len(found) - 1
        begun = text.rstrip("\ufffd").rstrip()
        if text not in readings and not (cut and any(reading.startswith(begun) for reading in readings)):
            fault = f"the trained tokens read {text!r:.120}, expected {readings[0]!r:.120}"
            raise DataError(f"answer {number}: {fault}", kind="supervision")


def text_tokenizer(tokenizer: Any, segments: Sequence[Segment] = ()) -> TextTokenizer:
    """The cached TextTokenizer of this tokenizer; made anew when tokens were added to it."""
    controls = frozenset(segment.text for segment in segments if segment.kind == "special")
    known = _text_tokenizers.setdefault(tokenizer, {})
    key = (len(tokenizer), controls)
    if key not in known:
        known[key] = TextTokenizer(tokenizer, controls)
    return known[key]


class TextTokenizer:
    """Private copies of a fast tokenizer that read every control token in a text as ordinary characters.

    Ordinary added tokens (coordinate bins) are still recognised. One copy reads the start of a text, one its
    continuation, without the dummy prefix of SentencePiece; the tokenizer's own rule says which of them reads what
    follows a control token.
    """

    def __init__(self, tokenizer: Any, controls: frozenset[str] = frozenset()) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError(
                f"{type(tokenizer).__name__} gives no offsets: a fast tokenizer (tokenizer.json) is needed"
            )
        state = json.loads(backend.to_str())
        state.update(truncation=None, padding=None, post_processor=None)
        controls = controls | set(tokenizer.all_special_tokens)
        for token in state["added_tokens"]:
            token["special"] = token["special"] or token["content"] in controls
        self.added = {token["content"]: token for token in state["added_tokens"]}
        special = {content for content, token in self.added.items() if token["special"]}
        self.forbidden = {self.added[content]["id"] for content in special} - {tokenizer.unk_token_id}
        _drop_merges(state["model"], special)
        self.start = _reader(backend, state)
        continued = {**state, **{key: _without_prefix(state[key]) for key in ("normalizer", "pre_tokenizer")}}
        self.continuation = self.start if continued == state else _reader(backend, continued)
        self.after_control = self.continuation if '"first"' in json.dumps(state["pre_tokenizer"]) else self.start

    def control_token(self, text: str) -> Mapping[str, Any] | None:
        """``id``, ``lstrip`` and ``rstrip`` of an added token; None where the tokenizer has no such token."""
        return self.added.get(text)

    def read(self, text: str, reader: Any) -> Iterator[tuple[int, tuple[int, int]]]:
        """Ids with character offsets; DataError if the tokenizer makes a control token of plain text all the same."""
        encoding = reader.encode(text, add_special_tokens=False)
        if not self.forbidden.isdisjoint(encoding.ids):
            raise DataError(f"the tokenizer reads a control token in the plain text {text!r:.80}")
        return zip(encoding.ids, encoding.offsets, strict=True)


def _tokens(segments: Sequence[Segment], text: TextTokenizer, images: Iterator[Sequence[int]]) -> Iterator[_Token]:
    previous: Any = None
    for element in _elements(segments, text):
        if isinstance(element, _Token):
            yield element
        elif isinstance(element, _Piece):
            reader = text.start
            if previous is not None:
                reader = text.continuation if isinstance(previous, _Piece) else text.after_control
            yield from _read_piece(element, text, reader)
        else:
            yield from (_Token(i, reply=element, image=True) for i in next(images))
        previous = element


def _read_piece(piece: _Piece, text: TextTokenizer, reader: Any) -> Iterator[_Token]:
    spans = piece.trained_spans()
    for token_id, (start, end) in text.read(piece.text, reader):
        hits = [answer for a, b, answer in spans if max(a, start) < min(b, end) or a <= start == end < b]
        yield _Token(token_id, piece.reply, trained=bool(hits), answer=any(hits))


def _elements(segments: Sequence[Segment], text: TextTokenizer) -> list[_Token | _Piece | int]:
    """Control tokens, pieces of text, and for each image the number of the reply before it."""
    elements: list[_Token | _Piece | int] = []
    reply, swallow = 0, False
    for segment in segments:
        reply += segment.boundary
        control = text.control_token(segment.text) if segment.kind == "special" else None
        if control is not None:
            if control["lstrip"]:
                _strip_end(elements)
            elements.append(_Token(control["id"], reply, trained=segment.trained))
            swallow = control["rstrip"]
        elif segment.kind == "image":
            elements.append(reply)
            swallow = False
        elif written := segment.text.lstrip() if swallow else segment.text:
            if segment.boundary or not elements or not isinstance(elements[-1], _Piece):
                elements.append(_Piece(reply, segment.boundary))
            elements[-1].add(segment, written)  # type: ignore[union-attr]
            swallow = False
    return elements


def _strip_end(elements: list[_Token | _Piece | int]) -> None:
    if elements and isinstance(elements[-1], _Piece):
        elements[-1].text = elements[-1].text.rstrip()
        if not elements[-1].text:
            elements.pop()


def _check_images_fit(tokens: Sequence[_Token], length: int) -> None:
    needed = max((i + 1 for i, token in enumerate(tokens) if token.image), default=0)
    if needed > length:
        raise DataError(
            f"the text up to the end of its last image needs {needed} tokens but the model takes {length}: "
            "shorten the text before it, use fewer images or raise the maximal length"
        )


def _encoded(tokens: Sequence[_Token], *, truncated: bool) -> Encoded:
    ranges: dict[int, tuple[int, int]] = {}
    for i, token in enumerate(tokens):
        if token.trained:
            ranges[token.reply] = (ranges.get(token.reply, (i, i))[0], i + 1)
    return Encoded(
        input_ids=[token.id for token in tokens],
        labels=[token.id if token.trained else IGNORE_INDEX for token in tokens],
        truncated=truncated,
        answers=list(ranges.values()),
        answer_tokens=sum(token.answer for token in tokens),
    )


def _replies(segments: Sequence[Segment]) -> list[list[Segment]]:
    """The trained segments of each reply."""
    replies: dict[int, list[Segment]] = {}
    number = 0
    for segment in segments:
        number += segment.boundary
        if segment.trained:
            replies.setdefault(number, []).append(segment)
    return list(replies.values())


def _readings(reply: Sequence[Segment], tokenizer: Any) -> list[str]:
    """How a reply may read once decoded: as the tokenizer gives it back, or as it was written."""
    ids = encode(reply, tokenizer).input_ids
    return [_decode(ids, tokenizer).strip(), "".join(segment.text for segment in reply).strip()]


def _decode(ids: Sequence[int], tokenizer: Any) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _reader(backend: Any, state: dict[str, Any]) -> Any:
    reader = type(backend).from_str(json.dumps(state))
    reader.encode_special_tokens = True
    return reader


def _drop_merges(model: dict[str, Any], spelled: set[str]) -> None:
    """Forget the merges of a BPE that put a control token together from its letters."""
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if "".join(pair) not in spelled]


def _without_prefix(component: Any) -> Any:
    """A normalizer or pre-tokenizer that puts nothing in front of its text."""
    if not isinstance(component, dict):
        return component
    if component.get("type") == "Prepend":
        return None
    changed = dict(component)
    for key in ("normalizers", "pretokenizers"):
        if key in changed:
            changed[key] = [kept for one in changed[key] if (kept := _without_prefix(one)) is not None]
    if "prepend_scheme" in changed:
        changed["prepend_scheme"] = "never"
    if "add_prefix_space" in changed:
        changed["add_prefix_space"] = False
    return changed
