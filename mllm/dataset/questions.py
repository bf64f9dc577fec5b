"""Question template sets: JSON lists of sentences in which each placeholder stands exactly once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from mllm.errors import ConfigError, choices


class QuestionTemplates:
    """Sentences to ask with, from a set's name, the path of a JSON file, one literal sentence or a list of them.

    A text that holds a placeholder is a literal sentence; one that ends in ``.json`` is a path; any other is the name
    of a set that ships with the package.

    Raises:
        ConfigError: a set that is not there, a placeholder that does not stand exactly once, a sentence that repeats.
    """

    def __init__(self, spec: str | Sequence[str], placeholders: Sequence[str]) -> None:
        self.placeholders = tuple(placeholders)
        self.sentences, self.source = _read(spec, self.placeholders)
        self._check()

    def __len__(self) -> int:
        return len(self.sentences)

    def choose(self, rng: random.Random) -> str:
        """One of the sentences."""
        return rng.choice(self.sentences)

    def starting_with(self, placeholder: str) -> QuestionTemplates:
        """Those of the sentences that begin with ``placeholder``, so that it can be dropped and leave a sentence."""
        found = [sentence for sentence in self.sentences if sentence.startswith(placeholder)]
        if not found:
            raise ConfigError(f"{self.source}: no question begins with {placeholder}; several turns need one that does")
        return QuestionTemplates(found, self.placeholders)

    @staticmethod
    def fill(template: str, **values: str) -> str:
        """Put ``values`` in the place of ``<name>``; braces and percent signs in them mean nothing."""
        for name, value in values.items():
            template = template.replace(f"<{name}>", value)
        return template

    def _check(self) -> None:
        if not self.sentences:
            raise ConfigError(f"{self.source}: no question in it, expected a list of at least one sentence")
        seen: dict[str, int] = {}
        for number, sentence in enumerate(self.sentences):
            where = f"{self.source}[{number}]"
            if not isinstance(sentence, str):
                raise ConfigError(f"{where}: a question must be text, got {sentence!r:.60}")
            for placeholder in self.placeholders:
                times = sentence.count(placeholder)
                if times != 1:
                    raise ConfigError(f"{where}: {placeholder} stands {times} times in {sentence!r:.80}, expected once")
            if sentence in seen:
                raise ConfigError(f"{where}: {sentence!r:.80} repeats [{seen[sentence]}]; remove one of them")
            seen[sentence] = number


def shipped_sets() -> list[str]:
    """Names of the template sets that ship with the package."""
    folder = resources.files("mllm.assets") / "questions"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def _read(spec: str | Sequence[str], placeholders: Sequence[str]) -> tuple[list[str], str]:
    if not isinstance(spec, str):
        return list(spec), "questions"
    if any(placeholder in spec for placeholder in placeholders):
        return [spec], "questions"
    if spec.endswith(".json"):
        return _read_file(Path(spec), spec), spec
    if spec not in shipped_sets():
        raise ConfigError(
            f"questions={spec!r} is neither a template set, nor a .json file, nor a sentence with "
            f"{' and '.join(placeholders)}; {choices(spec, shipped_sets())}"
        )
    return _read_file(resources.files("mllm.assets") / "questions" / f"{spec}.json", spec), f"questions/{spec}.json"


def _read_file(file, name: str) -> list[str]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"questions={name!r}: the file cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"questions={name!r}: not valid JSON: {error}") from error
    if not isinstance(rows, list):
        raise ConfigError(f"questions={name!r}: expected a JSON list of sentences, got {type(rows).__name__}")
    return rows
