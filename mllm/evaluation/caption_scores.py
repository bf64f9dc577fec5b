"""BLEU, ROUGE-L and METEOR from numbers of each caption that add up over any set of captions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

ORDERS = 4
# As in coco-caption's BLEU: they keep quotients defined and are too small to show.
TINY, SMALL = 1e-15, 1e-9
ROUGE_BETA = 1.2

# METEOR 1.5 for English (Denkowski and Lavie, WMT 2014): exact, stem, synonym and paraphrase matches.
METEOR_STAGES = (1.0, 0.6, 0.8, 0.6)
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75


def bleu_statistics(caption: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """Length, closest reference length (of two as close the shorter), clipped matches and counts of 1- to 4-grams."""
    length = len(caption)
    closest = min(((abs(len(one) - length), len(one)) for one in references), default=(0, 0))[1]
    matches = [_clipped_matches(caption, references, order) for order in range(1, ORDERS + 1)]
    counts = [max(0, length - order + 1) for order in range(1, ORDERS + 1)]
    return [length, closest, *matches, *counts]


def bleu(statistics: Iterable[Sequence[float]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the captions together (Papineni et al., ACL 2002); no smoothing."""
    totals = [sum(column) for column in zip(*statistics, strict=True)] or [0] * (2 + 2 * ORDERS)
    length, reference_length = totals[:2]
    matches, counts = totals[2 : 2 + ORDERS], totals[2 + ORDERS :]
    ratio = (length + TINY) / (reference_length + SMALL)
    scores, product = [], 1.0
    for order, (matched, count) in enumerate(zip(matches, counts, strict=True), 1):
        product *= (matched + TINY) / (count + SMALL)
        scores.append(product ** (1.0 / order))
    if ratio < 1:
        scores = [score * math.exp(1 - 1 / ratio) for score in scores]
    # A caption of no words would leave the tenth decimal or so.
    return scores if length else [0.0] * ORDERS


def rouge_l(caption: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F of the longest common subsequence with β = 1.2, from the best precision and the best recall of any reference.

    As coco-caption: the two may come from different references.
    """
    if not caption or not references:
        return 0.0
    common = [common_subsequence(caption, one) for one in references]
    precision = max(common) / len(caption)
    recall = max(shared / max(len(one), 1) for shared, one in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return ((1 + ROUGE_BETA**2) * precision * recall) / (recall + ROUGE_BETA**2 * precision)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö, AWOCA 2004)."""
    places: dict[str, int] = {}
    for number, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << number
    full = (1 << len(first)) - 1
    open_bits = full
    for word in second:
        hit = open_bits & places.get(word, 0)
        open_bits = ((open_bits + hit) | (open_bits - hit)) & full
    return len(first) - open_bits.bit_count()


def meteor(statistics: Iterable[Sequence[float]]) -> float:
    """METEOR 1.5 of the captions together, from the jar's 23 numbers of each.

    They are: words of caption and reference, function words of both; for each stage the matched content words of both
    and function words of both; chunks; matched words of both.
    """
    rows = [list(row) for row in statistics]
    for row in rows:
        # As the jar has it: a caption that is its reference word for word is not broken into any chunk.
        if row[20] == 1 and row[21:] == row[:2]:
            row[20] = 0.0
    totals = [sum(column) for column in zip(*rows, strict=True)]
    if not totals:
        return 0.0
    chunks, *matched = totals[20:]
    precision, recall = (_weighted_share(totals, side) for side in (0, 1))
    if not precision or not recall:
        return 0.0
    mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall)
    fragmentation = chunks / (sum(matched) / 2)
    return mean * (1.0 - GAMMA * fragmentation**BETA)


def _weighted_share(totals: Sequence[float], side: int) -> float:
    """Weighted matches over weighted length; ``side`` 0 is the caption (precision), 1 the reference (recall)."""
    words, function_words = totals[side], totals[2 + side]
    length = DELTA * (words - function_words) + (1.0 - DELTA) * function_words
    matches = 0.0
    for stage, weight in enumerate(METEOR_STAGES):
        content, function = totals[4 + 4 * stage + side], totals[6 + 4 * stage + side]
        matches += weight * (DELTA * content + (1.0 - DELTA) * function)
    return matches / length if length else 0.0


def _clipped_matches(caption: Sequence[str], references: Sequence[Sequence[str]], order: int) -> int:
    wanted = _ngrams(caption, order)
    if not wanted:
        return 0
    greatest: dict[tuple[str, ...], int] = {}
    for reference in references:
        for ngram, count in _ngrams(reference, order).items():
            if count > greatest.get(ngram, 0):
                greatest[ngram] = count
    return sum(min(count, greatest.get(ngram, 0)) for ngram, count in wanted.items())


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))
