"""A second pass: the base model, its adapters switched off, rewrites what the tuned model wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mllm.errors import ConfigError
from mllm.models.adapters import has_adapters, without_adapters
from mllm.structures import Turn

ANSWER = "{answer}"


def check_second_pass(prompt: Any, model: Any) -> None:
    """ConfigError unless ``generation.second_pass`` is a text with ``{answer}`` once and the model has adapters."""
    if not isinstance(prompt, str) or prompt.count(ANSWER) != 1:
        raise ConfigError(f"generation.second_pass: expected a text with {ANSWER} once in it, got {prompt!r:.80}")
    if not has_adapters(model):
        raise ConfigError("generation.second_pass: the model has no adapters to switch off; it needs a LoRA checkpoint")


def rewrite(
    answers: Sequence[str], prompt: str, processor: Any, model: Any, generate: Callable[[dict[str, Any]], list[str]]
) -> list[str]:
    """The base model's answers to ``prompt`` with each answer put in; an empty answer stays empty.

    ``generate`` answers a left-padded batch. The pictures are not shown again.
    """
    turns = [[Turn("human", prompt.replace(ANSWER, answer))] for answer in answers]
    features = [processor.encode(one, [], generation=True) for one in turns]
    with without_adapters(model):
        written = generate(processor.collate(features, layout="left"))
    return [new if old else "" for old, new in zip(answers, written, strict=True)]
