"""The n-grams of captions and their references as arrays: what CIDEr and BLEU count.

A document is text of tokens: the caption, then a reference a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = 4


@dataclass(frozen=True)
class Order:
    """The n-grams of one length: an entry for each different one of a caption or reference, in reading order.

    ``caption``, ``ngram``, ``count`` (entries). ``document`` (occurrences): the documents in whose references an n-gram
    stands, by n-gram; those of n-gram k are ``bounds[k]`` to ``bounds[k + 1]``. ``pair_reference``, ``pair_ngram``,
    ``pair_counts`` (2, pairs): the n-grams that a reference shares with its caption, by reference and then in the
    caption's order, and how often caption and reference have them. ``matches`` (documents,): the n-grams of the caption
    that a reference has, each counted at most as often as in the reference that has it most.
    """

    caption: np.ndarray
    ngram: np.ndarray
    count: np.ndarray
    document: np.ndarray
    bounds: np.ndarray
    pair_reference: np.ndarray
    pair_ngram: np.ndarray
    pair_counts: np.ndarray
    matches: np.ndarray


class CaptionNgrams:
    """Documents compiled: ``place`` of each text, ``orders`` of its n-grams, and of each line, caption or reference:

    ``document`` it stands in, ``length`` in words, ``is_reference``. ``first`` (documents,) is the line of the caption.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        self.place = {text: number for number, text in enumerate(dict.fromkeys(documents))}
        self.lines = [line for text in self.place for line in text.split("\n")]
        self.document = np.repeat(np.arange(len(self.place)), [text.count("\n") + 1 for text in self.place])
        self.first = np.flatnonzero(_changes(self.document))
        self.is_reference = np.ones(len(self.lines), dtype=bool)
        self.is_reference[self.first] = False
        split = [line.split() for line in self.lines]
        self.length = np.array([len(words) for words in split], dtype=np.int64)
        words = [word for line in split for word in line]
        vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
        self.orders = self._compile(np.array([vocabulary[word] for word in words], dtype=np.int64), len(vocabulary))

    def covers(self, documents: Sequence[str]) -> bool:
        """Whether all these documents are among the compiled ones."""
        return all(text in self.place for text in documents)

    def places(self, documents: Sequence[str]) -> np.ndarray:
        """The number of each document."""
        return np.array([self.place[text] for text in documents], dtype=np.int64)

    def _compile(self, words: np.ndarray, vocabulary: int) -> list[Order]:
        caption, orders = np.repeat(np.arange(len(self.length)), self.length), []
        ngram, position = np.zeros(len(words), dtype=np.int64), np.arange(len(words))
        for order in range(1, ORDERS + 1):
            position = position[position + order <= len(words)]
            position = position[caption[position] == caption[position + order - 1]]
            key = ngram[position] * vocabulary + words[position + order - 1]
            by_ngram = np.argsort(key, kind="stable")
            sorted_key = key[by_ngram]
            # Ids of n-grams of one length are what those of the next are made of.
            ids = np.cumsum(_changes(sorted_key)) - 1
            ngram[position[by_ngram]] = ids
            orders.append(self._order(ids, position[by_ngram], caption[position[by_ngram]]))
        return orders

    def _order(self, ngram: np.ndarray, position: np.ndarray, caption: np.ndarray) -> Order:
        """From all places of n-grams, by n-gram and then in reading order."""
        ngrams = int(ngram[-1]) + 1 if len(ngram) else 0
        start = np.flatnonzero(_changes(ngram) | _changes(caption))
        count = np.diff(start, append=len(ngram))
        ngram, position, caption = ngram[start], position[start], caption[start]
        # Entries of one n-gram in one document follow each other, the caption's own first.
        document, of_reference = self.document[caption], self.is_reference[caption]
        opens = _changes(ngram) | _changes(document)
        head, tail = np.flatnonzero(opens), np.flatnonzero(np.append(opens[1:], [True] * bool(len(opens))))
        cited = head[of_reference[tail]]
        own = head[np.cumsum(opens) - 1]
        other = np.flatnonzero(of_reference & ~of_reference[own])
        own = own[other]
        shared, last = np.stack([count[own], count[other]]), len(self.place)
        best, one = np.flatnonzero(_changes(own)), np.minimum(*shared)
        matches = np.bincount(document[own[best]], np.maximum.reduceat(one, best) if len(best) else None, last)
        pairs, reading = np.lexsort((position[own], caption[other])), np.full(int(position.max(initial=-1)) + 1, -1)
        reading[position] = np.arange(len(position))
        reading = reading[reading >= 0]
        return Order(
            caption[reading],
            ngram[reading],
            count[reading].astype(float),
            document[cited],
            np.concatenate([[0], np.cumsum(np.bincount(ngram[cited], minlength=ngrams))]),
            caption[other][pairs],
            ngram[other][pairs],
            shared[:, pairs].astype(float),
            matches.astype(np.int64),
        )


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before; the first does."""
    found = np.ones(len(values), dtype=bool)
    found[1:] = values[1:] != values[:-1]
    return found
