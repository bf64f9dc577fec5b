"""CIDEr of many captions at once (Vedantam, Zitnick and Parikh, CVPR 2015), document frequencies from their references.

Sums run in the order of coco-caption's scorer, so that the digits are the same. All that does not depend on which
captions are evaluated together is worked out once: a subset, or a bootstrap sample, costs a few array operations.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from mllm.evaluation.caption_ngrams import ORDERS, CaptionNgrams, Order

VARIANTS = ("D", "original", "R")
SIGMA = 6.0
SCALE = 10.0
# CIDEr-R: how much repetition and length weigh in its penalty.
REPETITION, LENGTH = 0.8, 0.2
_WORD = re.compile(r"\w+")


class Cider:
    """The scores of compiled captions, 10 at most.

    ``variant`` is ``"D"`` (counts clipped to the caption's, Gaussian penalty of the length), ``"original"`` (cosine) or
    ``"R"`` (clipped, ``robust_penalty``).
    """

    def __init__(self, ngrams: CaptionNgrams, variant: str = "D") -> None:
        self.ngrams, self.variant = ngrams, variant
        reference = np.flatnonzero(ngrams.is_reference)
        # Of each reference: its line, its document, and the line of its caption.
        self._line, self._document = reference, ngrams.document[reference]
        self._caption = ngrams.first[self._document]
        self._references = np.bincount(self._document, minlength=len(ngrams.place))
        penalties = {"D": _length_penalties, "R": _robust_penalties, "original": lambda *lines: 1.0}
        self._penalty = penalties[variant](ngrams, self._caption, reference)

    def scores(self, documents: Sequence[str]) -> np.ndarray:
        """The score of each document with the document frequencies of exactly these (repeats count)."""
        places = self.ngrams.places(documents)
        return self._scores(np.bincount(places, minlength=len(self.ngrams.place)))[places]

    def drawn(self, documents: Sequence[str], clusters: np.ndarray) -> Callable[[np.ndarray], float]:
        """Their mean as a function of how often each cluster is drawn; ``clusters`` holds that of each document."""
        places, count = self.ngrams.places(documents), len(self.ngrams.place)

        def mean(times: np.ndarray) -> float:
            weights = np.bincount(places, weights=times[clusters], minlength=count)
            return float(weights @ self._scores(weights.astype(np.int64)) / max(weights.sum(), 1.0))

        return mean

    def _scores(self, weights: np.ndarray) -> np.ndarray:
        """The score of every compiled document where each counts ``weights`` times (documents,)."""
        logarithms = np.log(np.maximum(1.0, np.arange(weights.sum() + 1)))
        similarities = [self._similarity(order, weights, logarithms) for order in self.ngrams.orders]
        total = ((similarities[0] + similarities[1]) + similarities[2]) + similarities[3]
        return total / ORDERS / np.maximum(self._references, 1) * SCALE

    def _similarity(self, order: Order, weights: np.ndarray, logarithms: np.ndarray) -> np.ndarray:
        """Similarity of each document's caption with its references, summed over them, for n-grams of one length."""
        lines, cited = len(self.ngrams.lines), np.zeros(len(order.document) + 1, dtype=np.int64)
        np.cumsum(weights[order.document], out=cited[1:])
        rarity = (logarithms[-1] - logarithms)[np.diff(cited[order.bounds])]
        squares = np.square(order.count * rarity[order.ngram])
        norms = np.sqrt(np.bincount(order.caption, weights=squares, minlength=lines))
        own, other = order.pair_counts * rarity[order.pair_ngram]
        products = (own if self.variant == "original" else np.minimum(own, other)) * other
        shared = np.bincount(order.pair_reference, weights=products, minlength=lines)[self._line]
        lengths = norms[self._caption] * norms[self._line]
        values = shared / np.where(lengths == 0, 1.0, lengths) * self._penalty
        return np.bincount(self._document, weights=values, minlength=len(weights))


def robust_penalty(caption: str, reference: str) -> float:
    """CIDEr-R's penalty (arXiv 2109.13701), as github gabrielsantosrv/coco-caption has it (ciderR, commit 7c15d40).

    Repetition is the geometric mean over the caption's words of 1 / (1 + d), d the difference in how often caption and
    reference have the word, or its repeats where the reference lacks it; length is exp(-(difference / length of the
    reference)²), lengths in bigrams. A reference without any, by which that code would divide, gives 1 or 0.
    """
    said, true = Counter(_WORD.findall(caption)), Counter(_WORD.findall(reference))
    differences = [abs(count - true[word]) if word in true else count - 1 for word, count in said.items()]
    repetition = math.exp(-sum(map(math.log1p, differences)) / max(len(differences), 1))
    length, wanted = (max(len(text.split()) - 1, 0) for text in (caption, reference))
    apart = (length - wanted) / wanted if wanted else math.inf * length if length else 0.0
    return repetition**REPETITION * math.exp(-(apart**2)) ** LENGTH


def _robust_penalties(ngrams: CaptionNgrams, captions: np.ndarray, references: np.ndarray) -> np.ndarray:
    pairs = zip(captions.tolist(), references.tolist(), strict=True)
    return np.array([robust_penalty(ngrams.lines[caption], ngrams.lines[reference]) for caption, reference in pairs])


def _length_penalties(ngrams: CaptionNgrams, captions: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Gaussian of the difference in bigrams, which is how coco-caption takes lengths."""
    bigrams = np.maximum(ngrams.length - 1, 0)
    differences = bigrams[captions] - bigrams[references]
    table = {one: math.e ** (-(float(one) ** 2) / (2 * SIGMA**2)) for one in np.unique(differences).tolist()}
    return np.array([table[one] for one in differences.tolist()])
