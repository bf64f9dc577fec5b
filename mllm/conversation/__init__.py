"""Conversation templates, rendering with answer spans, encoding with labels."""

from mllm.conversation.encode import IGNORE_INDEX, Encoded, check_supervision, encode, supervised_text
from mllm.conversation.read_back import Span, read_back
from mllm.conversation.render import Segment, rendered_text, trained_text
from mllm.conversation.templates import ChatTemplate, Template, build_template

__all__ = [
    "IGNORE_INDEX",
    "ChatTemplate",
    "Encoded",
    "Segment",
    "Span",
    "Template",
    "build_template",
    "check_supervision",
    "encode",
    "read_back",
    "rendered_text",
    "supervised_text",
    "trained_text",
]
