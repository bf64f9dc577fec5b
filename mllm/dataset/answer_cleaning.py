"""Answers without stop words and punctuation: Phi-CLIP's training data (github ChintanShahDS/MultiModal_FineTuning)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mllm.dataset.mixture import Mixture, same_source
from mllm.registry import DATASETS
from mllm.structures import BOXES_PLACEHOLDER, POINTS_PLACEHOLDER, split_placeholders

# English function words, as toolkits commonly list them.
_WORDS = """
a about above after again against all am an and any are aren as at be because been before being below between both but
by can couldn d did didn do does doesn doing don down during each few for from further had hadn has hasn have haven
having he her here hers herself him himself his how i if in into is isn it its itself just ll m ma me mightn more most
mustn my myself needn no nor not now o of off on once only or other our ours ourselves out over own re s same shan she
should shouldn so some such t than that the their theirs them themselves then there these they this those through to
too under until up ve very was wasn we were weren what when where which while who whom why will with won wouldn y you
your yours yourself yourselves
"""
STOP_WORDS = frozenset(_WORDS.split())


@DATASETS.register_module()
class CleanAnswers(Mixture):
    """The given data set; from its answers punctuation and English stop words are dropped, case is kept.

    Each character that is neither alphanumeric nor white space is removed first, so "don't" becomes "dont". An answer
    of which nothing would be left stays as it is. ``stop_words=False`` drops punctuation alone. Placeholders of boxes
    and points are words of an answer that are kept.
    """

    def __init__(self, dataset: Mapping[str, Any], stop_words: bool = True) -> None:
        super().__init__([dataset])
        self.stop_words = stop_words

    def locate(self, index: int, epoch: int) -> tuple[int, int, int]:
        """The same place."""
        return 0, index, epoch

    def rows_of_parts(self, indices: np.ndarray | None) -> list[np.ndarray | None]:
        """The same rows."""
        return [indices]

    def same_source(self, index: int, step: int) -> int:
        """As the data set says."""
        return same_source(self.datasets[0], index, step)

    def item(self, index: int, epoch: int = 0) -> Any:
        """The item, its answers cleaned; the references of its truth are left alone."""
        item = dict(super().item(index, epoch))
        item["conversations"] = [
            {**turn, "value": clean(turn["value"], self.stop_words)} if turn["from"] == "gpt" else turn
            for turn in item["conversations"]
        ]
        return item


def clean(answer: str, stop_words: bool = True) -> str:
    """``answer`` without punctuation and stop words; itself if nothing would be left."""
    words: list[str] = []
    for piece in split_placeholders(answer, BOXES_PLACEHOLDER, POINTS_PLACEHOLDER):
        if piece in (BOXES_PLACEHOLDER, POINTS_PLACEHOLDER):
            words.append(piece)
            continue
        plain = "".join(letter for letter in piece if letter.isalnum() or letter.isspace())
        words += [word for word in plain.split() if not (stop_words and word.lower() in STOP_WORDS)]
    return " ".join(words) or answer
