"""The texts of Otter and OpenFlamingo: the image token of a turn stands at its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mllm.conversation.render import Segment, question_segments
from mllm.conversation.templates import Template
from mllm.errors import ConfigError
from mllm.registry import TEMPLATES
from mllm.structures import Turn

END_OF_CHUNK, ANSWER = "<|endofchunk|>", "<answer>"


@TEMPLATES.register_module("otter")
class OtterTemplate(Template):
    """``<s><image>User: Q GPT:<answer> A<|endofchunk|></s>``; more turns follow before ``</s>`` (arXiv 2305.03726).

    ``form="upstream"`` puts the image before ``User:``, ``"precursor"`` writes a space first and the image behind it.
    The last ``</s>`` is trained.
    """

    name = "otter"
    controls: ClassVar[tuple[str, ...]] = (END_OF_CHUNK, ANSWER, "</s>")
    after_question = f" GPT:{ANSWER}"
    gap = " "
    end = END_OF_CHUNK

    def __init__(self, form: str = "upstream") -> None:
        super().__init__()
        if form not in ("upstream", "precursor"):
            raise ConfigError(f"template otter: form={form!r}; known: upstream, precursor")
        self.form = form

    def render(self, turns: Sequence[Turn], *, generation: bool) -> list[Segment]:
        """As in the base; ``</s>`` closes a trained conversation."""
        segments = super().render(turns, generation=generation)
        if generation or turns[-1].role != "gpt":
            return segments
        return [*segments, Segment("special", "</s>", trained=True)]

    def _opening(self) -> list[Segment]:
        return [Segment("text", " ")] if self.form == "precursor" else []

    def _question(self, question: str) -> list[Segment]:
        images, text = _images_first(question)
        user = [*images, Segment("text", "User: ")] if self.form == "upstream" else [Segment("text", "User: "), *images]
        space = [Segment("text", " ")] if self.form == "precursor" and images else []
        return [*user, *space, *([Segment("text", text)] if text else []), *self._marks(self.after_question)]


@TEMPLATES.register_module("openflamingo")
class OpenFlamingoTemplate(Template):
    """OpenFlamingo's own (arXiv 2308.01390): caption ``<image>Output:A``, VQA ``<image>Question:Q Short answer:A``.

    ``task`` is "caption" (the text of the question is dropped) or "vqa"; an answer ends with ``<|endofchunk|>``.
    """

    name = "openflamingo"
    controls: ClassVar[tuple[str, ...]] = (END_OF_CHUNK,)
    end = END_OF_CHUNK

    def __init__(self, task: str = "caption") -> None:
        super().__init__()
        if task not in ("caption", "vqa"):
            raise ConfigError(f"template openflamingo: task={task!r}; known: caption, vqa")
        self.task = task

    def _question(self, question: str) -> list[Segment]:
        images, text = _images_first(question)
        written = "Output:" if self.task == "caption" else f"Question:{text} Short answer:"
        return [*images, Segment("text", written)]


def _images_first(question: str) -> tuple[list[Any], str]:
    """The image segments of a question, and its text in one line."""
    segments = question_segments(question)
    images = [segment for segment in segments if segment.kind == "image"]
    return images, " ".join("".join(segment.text for segment in segments if segment.kind != "image").split())
