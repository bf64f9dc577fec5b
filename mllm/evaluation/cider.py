"""CIDEr of many captions at once (Vedantam, Zitnick and Parikh, CVPR 2015), document frequencies from their references.

Sums run in the order of coco-caption's scorer, so that the digits are the same. All that does not depend on which
captions are evaluated together is worked out once: a subset, or a bootstrap sample, costs a few array operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = 4
SIGMA = 6.0
SCALE = 10.0


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length: an entry for each different one of a caption, in reading order.

    ``caption``, ``ngram``, ``count`` (entries); ``document``, ``document_ngram``: the n-grams of a document's
    references, each once; ``pair_reference``, ``pair_ngram``, ``pair_counts`` (2, pairs): the n-grams that a reference
    shares with its caption, in the caption's order, and how often each of the two has them.
    """

    ngrams: int
    caption: np.ndarray
    ngram: np.ndarray
    count: np.ndarray
    document: np.ndarray
    document_ngram: np.ndarray
    pair_reference: np.ndarray
    pair_ngram: np.ndarray
    pair_counts: np.ndarray


class CiderCorpus:
    """Captions with their references, compiled; a document is text of tokens: the caption, then a reference a line.

    ``variant`` is ``"D"`` (counts clipped to the caption's, Gaussian penalty of the length) or ``"original"`` (cosine).
    """

    def __init__(self, documents: Sequence[str], variant: str = "D") -> None:
        self.variant = variant
        self.place = {text: number for number, text in enumerate(dict.fromkeys(documents))}
        captions = [(number, line.split()) for text, number in self.place.items() for line in text.split("\n")]
        self._document = np.array([number for number, _ in captions], dtype=np.int64)
        lengths = np.array([len(words) for _, words in captions], dtype=np.int64)
        first = np.flatnonzero(np.diff(self._document, prepend=-1))
        self._first, self._is_reference = first, np.ones(len(captions), dtype=bool)
        self._is_reference[first] = False
        self._references = np.bincount(self._document[self._is_reference], minlength=len(self.place))
        self._penalty = _length_penalty(lengths, lengths[first][self._document])
        vocabulary: dict[str, int] = {}
        words = [vocabulary.setdefault(word, len(vocabulary)) for _, line in captions for word in line]
        self._orders = self._compile(np.array(words, dtype=np.int64), lengths, max(len(vocabulary), 1))

    def covers(self, documents: Sequence[str]) -> bool:
        """Whether all these documents are among the compiled ones."""
        return all(text in self.place for text in documents)

    def scores(self, documents: Sequence[str]) -> np.ndarray:
        """The score of each document, 10 at most, with the document frequencies of exactly these (repeats count)."""
        places = np.array([self.place[text] for text in documents], dtype=np.int64)
        if not len(places):
            return np.zeros(0)
        weights = np.bincount(places, minlength=len(self.place)).astype(float)
        logarithm = np.log(float(len(places)))
        similarities = [self._similarity(order, weights, logarithm) for order in self._orders]
        total = ((similarities[0] + similarities[1]) + similarities[2]) + similarities[3]
        mean = total / ORDERS / np.maximum(self._references, 1) * SCALE
        return mean[places]

    def _similarity(self, order: _Order, weights: np.ndarray, logarithm: float) -> np.ndarray:
        """Similarity of each document's caption with its references, summed over them, for n-grams of one length."""
        frequency = np.bincount(order.document_ngram, weights=weights[order.document], minlength=order.ngrams)
        rarity = logarithm - np.log(np.maximum(1.0, frequency))
        captions = len(self._document)
        squares = np.square(order.count * rarity[order.ngram])
        norms = np.sqrt(np.bincount(order.caption, weights=squares, minlength=captions))
        own, other = order.pair_counts * rarity[order.pair_ngram]
        products = (np.minimum(own, other) if self.variant == "D" else own) * other
        shared = np.bincount(order.pair_reference, weights=products, minlength=captions)
        lengths = norms[self._first][self._document] * norms
        values = shared / np.where(lengths == 0, 1.0, lengths)
        if self.variant == "D":
            values *= self._penalty
        chosen = self._is_reference
        return np.bincount(self._document[chosen], weights=values[chosen], minlength=len(weights))

    def _compile(self, words: np.ndarray, lengths: np.ndarray, vocabulary: int) -> list[_Order]:
        caption = np.repeat(np.arange(len(lengths)), lengths)
        orders, ngrams = [], words
        for order in range(1, ORDERS + 1):
            if order > 1:
                ngrams = ngrams[:-1] * vocabulary + words[order - 1 :] if len(ngrams) else ngrams
                ngrams = np.unique(ngrams, return_inverse=True)[1].reshape(-1)
            inside = caption[: len(ngrams)] == caption[order - 1 :] if len(ngrams) else np.zeros(0, dtype=bool)
            orders.append(self._entries(caption[: len(ngrams)][inside], ngrams[inside], int(ngrams.max(initial=0)) + 1))
        return orders

    def _entries(self, caption: np.ndarray, ngram: np.ndarray, ngrams: int) -> _Order:
        _, start, count = np.unique(caption * ngrams + ngram, return_index=True, return_counts=True)
        reading = np.argsort(start)
        start, count = start[reading], count[reading].astype(float)
        caption, ngram = caption[start], ngram[start]
        key, of_reference = self._document[caption] * ngrams + ngram, self._is_reference[caption]
        documents = np.unique(key[of_reference])
        return _Order(
            ngrams,
            caption,
            ngram,
            count,
            documents // ngrams,
            documents % ngrams,
            *_pairs(caption, ngram, count, key, of_reference),
        )


def _pairs(
    caption: np.ndarray, ngram: np.ndarray, count: np.ndarray, key: np.ndarray, of_reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each reference shares with its caption, by reference and then in the caption's reading order."""
    own, other = np.flatnonzero(~of_reference), np.flatnonzero(of_reference)
    if not len(own):
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, np.zeros((2, 0))
    by_key = own[np.argsort(key[own])]
    found = by_key[np.minimum(np.searchsorted(key[by_key], key[other]), len(by_key) - 1)]
    same = key[found] == key[other]
    found, other = found[same], other[same]
    order = np.lexsort((found, caption[other]))
    found, other = found[order], other[order]
    return caption[other], ngram[other], np.stack([count[found], count[other]])


def _length_penalty(lengths: np.ndarray, caption_lengths: np.ndarray) -> np.ndarray:
    """Gaussian of the difference in bigrams, which is how coco-caption takes lengths."""
    differences = np.maximum(caption_lengths - 1, 0) - np.maximum(lengths - 1, 0)
    table = {one: math.e ** (-(float(one) ** 2) / (2 * SIGMA**2)) for one in np.unique(differences).tolist()}
    return np.array([table[one] for one in differences.tolist()])
