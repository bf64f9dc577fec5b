"""Conversation templates: how turns become text, and which part of it is the answer.

A config names one as ``"vicuna_v1.1"`` or ``dict(type="vicuna_v1.1", system="...")``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from mllm.conversation.render import (
    Segment,
    at_boundary,
    exchanges,
    question_segments,
    reply_segments,
    template_segments,
)
from mllm.errors import ConfigError
from mllm.registry import TEMPLATES
from mllm.structures import Turn


class Template:
    """Base: the pieces of text around questions and answers; a new template gives its own.

    ``before_question`` Q ``after_question`` is the generation prompt; ``gap`` A ``end`` ``after_answer`` follows.
    Strings in ``controls`` are control tokens. ``bos`` says whether the tokenizer's first token leads.
    """

    name: ClassVar[str]
    bos: bool = True
    controls: ClassVar[tuple[str, ...]] = ()
    around_system: ClassVar[tuple[str, str]] = ("", "")
    before_question: ClassVar[str] = ""
    after_question: ClassVar[str] = ""
    gap: ClassVar[str] = ""
    end: ClassVar[str]
    after_answer: ClassVar[str] = ""
    default_system: ClassVar[str] = ""

    def __init__(self, system: str | None = None) -> None:
        self.system = system

    @property
    def stop(self) -> list[str]:
        """Strings at which generation may end: the end mark of an answer."""
        return [self.end.strip() or self.end]

    def bind(self, tokenizer: Any) -> Template:
        """The template for this tokenizer; only ``chat_template`` depends on it."""
        return self

    def render(self, turns: Sequence[Turn], *, generation: bool) -> list[Segment]:
        """The conversation as segments; ``generation`` drops a last answer and ends at the generation prompt.

        Answers lose white space at both ends. In generation nothing is trained: earlier answers are context.
        """
        segments = self._opening()
        for number, (question, answer) in enumerate(exchanges(turns, generation=generation)):
            asked = self._question(question)
            segments += at_boundary(asked) if number else asked
            if answer is not None:
                segments += reply_segments(self.gap, answer, self._marks(self.end), trained=not generation)
                segments += at_boundary(self._marks(self.after_answer))
        return segments

    def to_config(self) -> dict[str, Any]:
        """What ``build_template`` turns into an equal template."""
        arguments = {key: value for key, value in vars(self).items() if not key.startswith("_") and value is not None}
        return {"type": self.name, **arguments}

    def _opening(self) -> list[Segment]:
        system = self.default_system if self.system is None else self.system
        if not system:
            return []
        before, after = self.around_system
        return [*self._marks(before), Segment("text", system), *self._marks(after)]

    def _question(self, question: str) -> list[Segment]:
        before, after = self._marks(self.before_question), self._marks(self.after_question)
        return [*before, *question_segments(question), *after]

    def _marks(self, text: str) -> list[Segment]:
        return template_segments(text, self.controls)


@TEMPLATES.register_module("vicuna_v1.1")
class VicunaTemplate(Template):
    """Vicuna 1.1, used by LLaVA v1 and v1.5 and Shikra: ``SYSTEM USER: Q ASSISTANT: A</s>``."""

    name = "vicuna_v1.1"
    controls = ("</s>",)
    around_system = ("", " ")
    before_question = "USER: "
    after_question = " ASSISTANT:"
    gap = " "
    end = "</s>"
    default_system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )


@TEMPLATES.register_module("llava_v0")
class LlavaV0Template(Template):
    """FastChat v0, used by the first LLaVA: ``SYSTEM###Human: Q###Assistant: A###``."""

    name = "llava_v0"
    around_system = ("", "###")
    before_question = "Human: "
    after_question = "###Assistant:"
    gap = " "
    end = "###"
    default_system = (
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions."
    )


@TEMPLATES.register_module("plain")
class PlainTemplate(Template):
    """Projector pretraining: the images and the caption with a line break; the text of the question is dropped."""

    name = "plain"
    end = "\n"

    def __init__(self) -> None:
        super().__init__()

    def _question(self, question: str) -> list[Segment]:
        return [segment for segment in question_segments(question) if segment.kind == "image"]


@TEMPLATES.register_module("phi3")
class Phi3Template(Template):
    """Phi-3: ``<|user|>`` Q ``<|end|>``, ``<|assistant|>`` A ``<|end|>``, a line each."""

    name = "phi3"
    controls = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    around_system = ("<|system|>\n", "<|end|>\n")
    before_question = "<|user|>\n"
    after_question = "<|end|>\n<|assistant|>\n"
    end = "<|end|>"
    after_answer = "\n"


@TEMPLATES.register_module("internlm2_chat")
class InternLM2Template(Template):
    """InternLM2 chat, the ChatML form: ``<|im_start|>user`` Q ``<|im_end|>`` …"""

    name = "internlm2_chat"
    controls = ("<|im_start|>", "<|im_end|>")
    around_system = ("<|im_start|>system\n", "<|im_end|>\n")
    before_question = "<|im_start|>user\n"
    after_question = "<|im_end|>\n<|im_start|>assistant\n"
    end = "<|im_end|>"
    after_answer = "\n"


@TEMPLATES.register_module("chat_template")
class ChatTemplate(Template):
    """A model's own chat template, applied to stand-ins for the turns, which are put back afterwards.

    So no word of a turn is seen by the template, and answers are located without marks in it. The generation prompt
    is what the template writes before an answer, without trailing spaces. ``end`` is needed only where the template
    writes no control token after an answer. ``bind`` gives it the tokenizer.
    """

    name = "chat_template"
    bos = False

    def __init__(self, system: str | None = None, end: str | None = None) -> None:
        super().__init__(system)
        self.end = end  # type: ignore[misc]
        self._apply: Callable[..., str] | None = None
        self._tokens: tuple[str, ...] = ()
        self._written_end: str | None = None

    @property
    def stop(self) -> list[str]:
        """The end mark that the template writes, or ``end``."""
        mark = self._written_end or self.end
        return [mark.strip()] if mark else []

    def bind(self, tokenizer: Any) -> Template:
        """A copy that uses the tokenizer's chat template; ConfigError if it ends answers with no control token."""
        bound = copy.copy(self)
        bound._apply = tokenizer.apply_chat_template
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        bound._tokens = tuple(dict.fromkeys([*map(str, added), *tokenizer.all_special_tokens]))
        bound._written_end = bound._find_end()
        if bound._written_end is None and self.end is None:
            raise ConfigError("the chat template ends answers with no control token: give end='…' beside chat_template")
        return bound

    def render(self, turns: Sequence[Turn], *, generation: bool) -> list[Segment]:
        """As in the base; the template's own text, whatever it holds, is never trained but for the end mark."""
        pairs = exchanges(turns, generation=generation)
        contents = [one for pair in pairs for one in pair]
        texts = self._texts(len(contents))
        segments = self._written(texts[0])
        for number, (content, (before, after)) in enumerate(zip(contents, pairwise(texts), strict=True)):
            if number % 2 == 0:
                trimmed = after.rstrip(" ")
                segments += [*question_segments(content or ""), *self._written(trimmed)]
            elif content is not None:
                gap = before[len(before.rstrip(" ")) :]
                segments += self._reply(gap, content, after, trained=not generation)
        return segments

    def _reply(self, gap: str, answer: str, after: str, *, trained: bool) -> list[Segment]:
        if self._written_end is None:
            end = [Segment("special", self.end or "")]
        else:
            if not after.startswith(self._written_end):
                raise ConfigError(f"the chat template ends one answer with {after!r:.40}, not {self._written_end!r}")
            end, after = self._marks_of(self._written_end), after[len(self._written_end) :]
        return [*reply_segments(gap, answer, end, trained=trained), *at_boundary(self._marks_of(after))]

    def _written(self, text: str) -> list[Segment]:
        """Text before a question or an answer, with the system message put back."""
        before, stand_in, after = text.partition(_stand_in("system"))
        system = [Segment("text", self.system or "")] if stand_in else []
        return [*self._marks_of(before), *system, *self._marks_of(after)]

    def _marks_of(self, text: str) -> list[Segment]:
        return template_segments(text, self._tokens)

    def _find_end(self) -> str | None:
        """What the template writes after a last answer, up to its first control token, if only spaces precede it."""
        segments = self._marks_of(self._texts(2)[-1])
        spaces = segments[0].text if segments and not segments[0].text.strip(" ") else ""
        marks = [one for one in segments[bool(spaces) :][:1] if one.kind == "special"]
        return spaces + marks[0].text if marks else None

    def _texts(self, count: int) -> list[str]:
        """The template's text before, between and after ``count`` turns."""
        if self._apply is None:
            raise ConfigError("chat_template needs a tokenizer: use the result of template.bind(tokenizer)")
        for wrap in (str, lambda text: [{"type": "text", "text": text}]):
            texts = _split_at_turns(self._apply(self._messages(count, wrap), tokenize=False), count)
            if texts is not None and (self.system is None or _stand_in("system") in texts[0]):
                return texts
        raise ConfigError("the chat template does not write the system message and each turn once and in order")

    def _messages(self, count: int, wrap: Callable[[str], Any]) -> list[dict[str, Any]]:
        system = [] if self.system is None else [{"role": "system", "content": wrap(_stand_in("system"))}]
        roles = ("user", "assistant")
        return system + [{"role": roles[n % 2], "content": wrap(_stand_in(n))} for n in range(count)]


def build_template(spec: str | Mapping[str, Any] | Template) -> Template:
    """A template from a registered name, ``dict(type=..., ...)``, or itself."""
    if isinstance(spec, Template):
        return spec
    return TEMPLATES.build({"type": spec} if isinstance(spec, str) else spec)


def _stand_in(turn: int | str) -> str:
    return f"@@turn-{turn}@@"


def _split_at_turns(text: str, count: int) -> list[str] | None:
    texts = []
    for number in range(count):
        if text.count(_stand_in(number)) != 1:
            return None
        before, _, text = text.partition(_stand_in(number))
        texts.append(before)
    return [*texts, text]
