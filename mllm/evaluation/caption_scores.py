"""BLEU, ROUGE-L and METEOR from numbers of each caption that add up over any set of captions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from mllm.evaluation.caption_ngrams import ORDERS, CaptionNgrams

# As in coco-caption's BLEU: they keep quotients defined and are too small to show.
TINY, SMALL = 1e-15, 1e-9
ROUGE_BETA = 1.2

# METEOR 1.5 for English (Denkowski and Lavie, WMT 2014): exact, stem, synonym and paraphrase matches.
METEOR_STAGES = (1.0, 0.6, 0.8, 0.6)
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75


def bleu_statistics(ngrams: CaptionNgrams) -> list[list[int]]:
    """Of each document: length, closest reference length (of two as close the shorter), clipped matches and counts.

    Matches and counts are of 1- to 4-grams; the numbers add up over documents.
    """
    length = ngrams.length[ngrams.first]
    document, reference = (one[ngrams.is_reference] for one in (ngrams.document, ngrams.length))
    far = int(ngrams.length.max(initial=0)) + 1
    closest = np.full(len(length), far * far)
    np.minimum.at(closest, document, np.abs(reference - length[document]) * far + reference)
    # One without references has no length to be compared with.
    closest = np.where(closest == far * far, 0, closest % far)
    counts = [np.maximum(0, length - order) for order in range(ORDERS)]
    return np.stack([length, closest, *(order.matches for order in ngrams.orders), *counts], axis=1).tolist()


def bleu(totals: Sequence[float]) -> list[float]:
    """BLEU-1 to BLEU-4 (Papineni et al., ACL 2002) of the captions whose numbers add up to ``totals``; no smoothing."""
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
    common = common_subsequences(caption, references)
    precision = max(common) / len(caption)
    recall = max(shared / max(len(one), 1) for shared, one in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return ((1 + ROUGE_BETA**2) * precision * recall) / (recall + ROUGE_BETA**2 * precision)


def common_subsequences(first: Sequence[str], others: Iterable[Sequence[str]]) -> list[int]:
    """Length of the longest common subsequence of ``first`` and each other, bit-parallel (Hyyrö, AWOCA 2004)."""
    places: dict[str, int] = {}
    for number, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << number
    full, found = (1 << len(first)) - 1, []
    for other in others:
        open_bits = full
        for word in other:
            if hit := open_bits & places.get(word, 0):
                open_bits = ((open_bits + hit) | (open_bits - hit)) & full
        found.append(len(first) - open_bits.bit_count())
    return found


def meteor_addends(statistics: Sequence[float]) -> list[float]:
    """The jar's 23 numbers of a caption in the form in which they add up.

    They are: words of caption and reference, function words of both; for each stage the matched content words of both
    and function words of both; chunks; matched words of both.
    """
    # As the jar has it: a caption that is its reference word for word is not broken into any chunk.
    whole = statistics[20] == 1 and list(statistics[21:]) == list(statistics[:2])
    return [*statistics[:20], 0.0, *statistics[21:]] if whole else list(statistics)


def meteor(totals: Sequence[float]) -> float:
    """METEOR 1.5 of the captions whose ``meteor_addends`` add up to ``totals``."""
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
