"""BLIP's text: an optional prompt and the caption; the picture reaches the decoder beside the text."""

from __future__ import annotations

from collections.abc import Sequence

from mllm.conversation.render import Segment, question_segments
from mllm.conversation.templates import Template
from mllm.registry import TEMPLATES


@TEMPLATES.register_module("blip")
class BlipTemplate(Template):
    """``[DEC] PROMPT caption [SEP]``: the caption and its end mark are trained (arXiv 2201.12086).

    ``prompt`` ("a picture of") stands before every caption; the text of the question is dropped, or is the prompt where
    ``question`` is set.
    """

    name = "blip"
    controls = ("[SEP]",)
    gap = " "
    end = "[SEP]"

    def __init__(self, prompt: str = "", question: bool = False) -> None:
        super().__init__()
        self.prompt, self.question = prompt, question

    def _question(self, question: str) -> Sequence[Segment]:
        segments = question_segments(question)
        images = [segment for segment in segments if segment.kind == "image"]
        text = "".join(segment.text for segment in segments if segment.kind != "image").strip()
        prompt = text if self.question else self.prompt
        return [*images, *([Segment("text", prompt)] if prompt else [])]
