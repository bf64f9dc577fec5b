"""What sources of one task share: questions about an image, captions of an image, checked fields and options."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.questions import QuestionTemplates
from mllm.dataset.rows import Row
from mllm.errors import ConfigError, DataError, choices
from mllm.structures import IMAGE_PLACEHOLDER

QUESTION_FIRST_IMAGE = f"{IMAGE_PLACEHOLDER}\n<question>"
PER = ("image", "caption")


class QuestionDataset(RowDataset):
    """Base of questions about an image; ``questions`` are templates with ``<question>`` and ``<image>``."""

    def __init__(
        self, rows: Sequence[Row], *, questions: str | list[str] = QUESTION_FIRST_IMAGE, **options: Any
    ) -> None:
        super().__init__(rows, questions=questions, placeholders=("<question>", IMAGE_PLACEHOLDER), **options)

    def question_item(
        self,
        rng: random.Random,
        *,
        img_path: str | None,
        question: str,
        answers: Sequence[str] = (),
        answer: str | None = None,
        **meta: Any,
    ) -> dict[str, Any]:
        """The item of one question.

        ``answer`` is the text to train on, by default the most frequent of ``answers``; without any the conversation
        ends with the question, as for a test set.
        """
        question = question.replace(IMAGE_PLACEHOLDER, "").strip()
        template = self.questions.choose(rng)
        if img_path is None:
            template = template.replace(IMAGE_PLACEHOLDER, "").strip()
        answers = list(answers)
        if answer is None and answers:
            answer = most_frequent(answers)
        item: dict[str, Any] = {
            "conversations": exchange(QuestionTemplates.fill(template, question=question), answer),
            "truth": {"question": question, **({"answers": answers} if answers else {})},
            "meta": {"source": type(self).__name__, "image_id": img_path, **known(meta)},
        }
        if img_path is not None:
            item["image"] = self.image(img_path)
        return item


class CaptionDataset(RowDataset):
    """Base of captioned images over rows with ``img_path`` and ``captions``; the truth holds all captions of the image.

    Args:
        rows: one an image; what else stands in it goes into ``meta``.
        per: ``"image"`` gives one item an image, with another of its captions to train on from epoch to epoch;
            ``"caption"`` gives one item a caption. Evaluation wants ``"image"``.
    """

    def __init__(self, rows: Sequence[Row], *, per: str = "image", **options: Any) -> None:
        check_choice(self, "per", per, PER)
        if per == "caption":
            rows = [Row({**row, "caption": n}, row.place) for row in rows for n in range(len(row["captions"]))]
        super().__init__(rows, placeholders=(IMAGE_PLACEHOLDER,), **options)

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One image and one of its captions."""
        captions = row["captions"]
        chosen = row["caption"] if "caption" in row else rng.randrange(len(captions))
        meta = {key: value for key, value in row.items() if key not in ("img_path", "captions", "caption")}
        return {
            "image": self.image(row["img_path"]),
            "conversations": exchange(self.ask(rng), captions[chosen]),
            "truth": {"references": list(captions)},
            "meta": {"source": type(self).__name__, "image_id": row["img_path"], **meta},
        }

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of the longest caption, one image)."""
        return max(map(len, self.rows[index]["captions"])), 1


def exchange(question: str, answer: str | None = None) -> list[dict[str, str]]:
    """The turns of one question and, where there is one, its answer."""
    turns = [{"from": "human", "value": question}]
    return turns if answer is None else [*turns, {"from": "gpt", "value": answer}]


def most_frequent(answers: Sequence[str], preferred: str | None = None) -> str:
    """The answer given most often; of equally frequent ones ``preferred`` if it is among them, else the first."""
    counts = Counter(answers)
    best = [one for one in counts if counts[one] == max(counts.values())]
    return preferred if preferred in best else best[0]


def known(values: dict[str, Any]) -> dict[str, Any]:
    """The entries that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def text_field(row: Row, key: str) -> str:
    """The text in field ``key``; DataError that names place and field where it is missing or no text."""
    value = row[key]
    if not isinstance(value, str):
        raise DataError(f"{row.place}: field {key!r} must be text, got {value!r:.60}")
    return value


def file_name(pattern: str, **values: Any) -> str:
    """``pattern`` with its ``{fields}`` filled, as in ``COCO_val2014_{image_id:012d}.jpg``."""
    try:
        return pattern.format_map(values)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ConfigError(f"the file pattern {pattern!r} cannot be filled with {given} ({error})") from error


def check_choice(owner: Any, name: str, value: Any, allowed: Sequence[str]) -> None:
    """ConfigError with the allowed values unless ``value`` is one of them."""
    if value not in allowed:
        raise ConfigError(f"{type(owner).__name__}: {name}={value!r}; {choices(str(value), allowed)}")
