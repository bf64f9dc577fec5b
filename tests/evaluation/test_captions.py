import math

import numpy as np
import pytest

from mllm.errors import ConfigError, DataError
from mllm.evaluation import caption_tokens, captions, java_tools
from mllm.evaluation.caption_ngrams import CaptionNgrams
from mllm.evaluation.caption_scores import bleu, bleu_statistics, common_subsequences, meteor, meteor_addends, rouge_l
from mllm.evaluation.caption_tokens import plain_tokens
from mllm.evaluation.cider import robust_penalty
from mllm.registry import EVALUATORS
from mllm.structures import Record

PLAIN = {"tokenizer": "none", "meteor": "off"}


def _words(text):
    return text.split()


def _evaluator(**options):
    return EVALUATORS.build({"type": "CaptionEvaluator", **PLAIN, **options})


def _record(index, caption, *references, **meta):
    return Record(index, str(index), caption, truth={"references": list(references)}, meta={"image_id": index, **meta})


def _scores(*records, **options):
    return _evaluator(**options).evaluate(list(records), resamples=0).metrics


# BLEU


def _numbers(*texts):
    """Of the caption, the first of ``texts``, with its references."""
    return bleu_statistics(CaptionNgrams(["\n".join(texts)]))[0]


def test_the_closest_reference_length_counts_and_of_two_as_close_the_shorter():
    assert _numbers("a b c d", "a", "a b c d e")[1] == 5
    assert _numbers("a b c d", "a b c d e", "a b c")[1] == 3
    assert _numbers("a b c d")[1] == 0


def test_matches_are_clipped_by_the_reference_that_has_most():
    # "the" stands 3 times in the caption, at most 2 times in one reference; "the the" twice, and once in a reference.
    assert _numbers("the the the", "the cat the", "the the") == [3, 3, 2, 1, 0, 0, 3, 2, 1, 0]
    assert _numbers("", "a b") == [0, 2, 0, 0, 0, 0, 0, 0, 0, 0]


def test_bleu_of_two_captions_is_of_their_sums_not_of_their_means():
    # Unigrams 2 of 2 and 0 of 2: 2 of 4. Lengths 2 + 2 against 2 + 4: exp(1 - 6 / 4).
    rows = bleu_statistics(CaptionNgrams(["a b\na b", "x y\na b c d"]))
    assert bleu([x + y for x, y in zip(*rows, strict=True)])[0] == pytest.approx(0.5 * math.exp(-0.5), rel=1e-8)


def test_bleu_4_is_the_geometric_mean_of_four_precisions():
    # Of 5, 4, 3, 2 n-grams match 4, 3, 2, 1; same length.
    assert bleu(_numbers("a b c d x", "a b c d e"))[3] == pytest.approx(
        (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25, rel=1e-8
    )


# ROUGE-L


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [("a b c d", "a c d", 3), ("a b a b", "b a b a", 3), ("a", "b", 0), ("", "a", 0), ("x a y b", "a b", 2)],
)
def test_longest_common_subsequence(first, second, length):
    assert common_subsequences(first.split(), [second.split()]) == [length]
    assert common_subsequences(second.split(), [first.split(), []]) == [length, 0]


def test_rouge_takes_precision_and_recall_from_different_references():
    # Caption of 4. First reference of 8 holds it whole: precision 1, recall 1/2. Second is one of its words:
    # precision 1/4, recall 1. Best of both: 1 and 1.
    references = [_words("a b c d e f g h"), ["a"]]
    assert rouge_l(_words("a b c d"), references) == pytest.approx(1)
    # P = 1, R = 1/2, b² = 1.44: 2.44 · 0.5 / (0.5 + 1.44).
    assert rouge_l(_words("a b c d"), references[:1]) == pytest.approx(1.22 / 1.94)


def test_rouge_of_no_word_is_zero():
    assert rouge_l([], [[]]) == rouge_l(["a"], [[]]) == rouge_l(["a"], []) == 0


# CIDEr


def test_captions_like_all_their_references_get_ten():
    records = [_record(0, "a b c d", "a b c d", "a b c d"), _record(1, "e f g h", "e f g h")]
    assert _scores(*records)["CIDEr"] == pytest.approx(10)
    assert _scores(*records, cider="original")["CIDEr"] == pytest.approx(10)
    assert _scores(*records, cider="R")["CIDEr"] == pytest.approx(10)


def test_three_words_have_no_4_gram_and_get_three_quarters():
    assert _scores(_record(0, "a b c", "a b c"), _record(1, "e f g h", "x"))["CIDEr"] == pytest.approx(7.5 / 2)


def test_words_of_every_image_bear_no_weight():
    # "the" stands in the references of both images: log(2 / 2) = 0. Only "cat" counts: unigrams 1, bigrams differ.
    records = [_record(0, "cat the", "the cat"), _record(1, "the", "the dog")]
    assert _scores(*records)["CIDEr"] == pytest.approx(10 / 4 / 2)


def test_repeating_a_rare_word_gains_nothing_but_in_the_original():
    # Counts 3 against 1 of one word: D takes min(3, 1) · 1 / (3 · 1) = 1/3, the penalty is exp(-(2 - 0)² / 72);
    # the original takes the cosine, 1.
    records = [_record(0, "cat cat cat", "cat"), _record(1, "dog", "dog")]
    # The dog gets 10 / 4.
    assert _scores(*records)["CIDEr"] == pytest.approx((10 / 4 * math.exp(-4 / 72) / 3 + 10 / 4) / 2)
    assert _scores(*records, cider="original")["CIDEr"] == pytest.approx(10 / 4)


@pytest.mark.parametrize(
    ("caption", "reference", "repetition", "length"),
    [
        ("a b c", "a b c", 1, 1),
        # Bigrams 3 and 2: exp(-(1/2)²). b stands once too often: 1/2 for one of three words.
        ("a b b c", "a b c", 0.5 ** (1 / 3), math.exp(-0.25)),
        # Shorter counts as longer: 2 and 4 bigrams. d is missing and a too rare: 1/2 for a, 1 for b and c.
        ("a b c", "a a b c d", 0.5 ** (1 / 3), math.exp(-0.25)),
        # Words that the reference lacks: x once is no repetition, y three times are two repeats.
        ("x y y y", "a b c d", (1 * 1 / 3) ** (1 / 2), 1),
        ("a", "a", 1, 1),
        ("a b", "a", 1, 0),
        ("", "a b", 1, math.exp(-1)),
    ],
)
def test_cider_r_penalises_repetition_and_relative_length(caption, reference, repetition, length):
    assert robust_penalty(caption, reference) == pytest.approx(repetition**0.8 * length**0.2)


def test_cider_r_takes_its_penalty_in_the_place_of_the_gaussian():
    # Unigrams of "cat cat dog" against "cat dog": (min(2, 1) · 1 + 1) / (√5 √2), bigrams 1 of √2 · 1 (one word is rare
    # where the other is: both stand in one of two images), trigrams none. Penalty: cat 1/2, dog 1; 2 bigrams and 1.
    records = [_record(0, "cat cat dog", "cat dog"), _record(1, "x y z w", "x y z w")]
    penalty = 0.5 ** (0.5 * 0.8) * math.exp(-1) ** 0.2
    expected = 10 / 4 * penalty * (2 / math.sqrt(10) + 1 / math.sqrt(2))
    result = _evaluator(cider="R").evaluate(records, resamples=0)
    assert [row["CIDEr"] for row in result.scores] == pytest.approx([expected, 10])
    assert "|cider=R|" in result.signature


def test_one_image_alone_has_no_rare_word():
    assert _scores(_record(0, "a b c d", "a b c d"))["CIDEr"] == 0


def test_document_frequencies_are_those_of_the_rows_reduced():
    evaluator = _evaluator()
    records = [_record(n, f"a{n} b{n % 4} c d", f"a{n} b{n % 4} c e") for n in range(5)]
    rows = evaluator.evaluate(records).statistics
    alone = _evaluator().evaluate(records[:3], resamples=0).metrics
    part = evaluator.reduce(rows[:3])
    assert part == {name: alone[name] for name in part}
    assert part["CIDEr"] != pytest.approx(np.mean(evaluator.cider_scores(rows)[:3]))


def test_each_score_row_bears_its_own_cider():
    result = _evaluator().evaluate([_record(0, "a b c d", "a b c d"), _record(1, "x", "e f g h")], resamples=0)
    assert [row["CIDEr"] for row in result.scores] == pytest.approx([10, 0])


# The evaluator


def test_a_caption_without_words_scores_nothing_but_its_references_count():
    empty = [_record(0, "a b c d", "a b c d"), _record(1, " \n", "e f g h"), _record(2, "i j k l", "i j k l")]
    result = _evaluator().evaluate(empty)
    assert result.failures == {"empty answer": 1}
    assert result.metrics["CIDEr"] == pytest.approx(20 / 3)
    # 8 words against 12: exp(1 - 12 / 8).
    assert result.metrics["BLEU-1"] == pytest.approx(math.exp(-0.5), rel=1e-8)


def test_a_record_that_was_not_generated_may_lack_its_truth():
    failed = Record(1, "1", "", failure="val[1]: image is missing")
    result = _evaluator().evaluate([_record(0, "a b c d", "a b c d"), failed, _record(2, "x", "y")], resamples=0)
    assert result.failures == {"not generated": 1}
    assert result.metrics["ROUGE-L"] == pytest.approx(1 / 3)


def test_text_that_a_failed_record_still_has_does_not_count():
    failed = Record(1, "1", "e f g h", truth={"references": ["e f g h"]}, failure="stopped")
    assert _scores(_record(0, "a b c d", "a b c d"), failed)["ROUGE-L"] == 0.5


def test_a_truth_without_references_is_an_error():
    with pytest.raises(DataError, match="CaptionEvaluator needs texts in the truth's 'references'"):
        _scores(Record(0, "0", "a", truth={}))


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"did you mean 'D'\?"):
        _evaluator(cider="d")


def test_plain_tokens_drop_punctuation_between_words():
    texts = ['A "Dog" isn\'t here - 3-year-old,  (big).', "...", "Ein Café\u2028zwei"]
    assert plain_tokens(texts) == ["a dog isn't here 3-year-old big", "", "ein café zwei"]


def test_tables_are_by_category():
    records = [_record(n, "a b c d", f"a b c {n}", category="NWPU" if n < 3 else "RSICD") for n in range(5)]
    assert {name: row["samples"] for name, row in _evaluator().evaluate(records).tables["category"].items()} == {
        "NWPU": 3,
        "RSICD": 2,
    }


# Java


def test_without_java_the_other_metrics_come_and_the_signature_says_why(monkeypatch):
    monkeypatch.setattr(java_tools.shutil, "which", lambda name: None)
    result = EVALUATORS.build({"type": "CaptionEvaluator"}).evaluate(
        [_record(0, "A dog.", "a dog"), _record(1, "b", "b")]
    )
    assert "METEOR" not in result.metrics
    assert result.metrics["ROUGE-L"] == 1
    assert "tok=plain" in result.signature
    assert "METEOR=n/a (Java is missing: apt-get install default-jre-headless)" in result.signature


def test_ptb_asked_for_by_name_is_not_replaced(monkeypatch):
    monkeypatch.setattr(java_tools.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="tokenizer='ptb' needs Java"):
        _evaluator(tokenizer="ptb")


def test_a_java_that_breaks_down_costs_its_metrics_alone(monkeypatch):
    def broken(*arguments):
        raise java_tools.JavaProblem("Java gave 0 of 1 lines")

    monkeypatch.setattr(captions, "_problem", lambda jar: None)
    monkeypatch.setattr(captions, "run_meteor", broken)
    monkeypatch.setattr(caption_tokens, "ptb_tokens", broken)
    records = [_record(0, "A dog.", "a dog"), _record(1, "b", "b")]
    result = EVALUATORS.build({"type": "CaptionEvaluator"}).evaluate(records)
    assert result.metrics["ROUGE-L"] == 1
    assert "METEOR" not in result.metrics
    assert "PTB=n/a (Java gave 0 of 1 lines)|METEOR=n/a" in result.signature


def test_meteor_from_the_numbers_of_its_lines():
    # Caption and reference of 4 words, 2 of them function words in both; matched exactly: 1 content and 1 function
    # word, 2 chunks. Length .75 · 2 + .25 · 2 = 2, matches .75 + .25 = 1: P = R = Fmean = 1/2.
    # Chunks over matches 2 / 2 = 1: the penalty is .6.
    line = [4, 4, 2, 2, 1, 1, 1, 1, *[0] * 12, 2, 2, 2]
    assert meteor(line) == pytest.approx(0.5 * 0.4)
    # Stem matches weigh .6.
    assert meteor([4, 4, 2, 2, *[0] * 4, 1, 1, 1, 1, *[0] * 8, 2, 2, 2]) == pytest.approx(0.3 * 0.4)
    # The whole reference in one chunk is not penalised, nor counted as a chunk beside others: 0 + 2 over 4 + 2.
    whole = meteor_addends([4, 4, 2, 2, 2, 2, 2, 2, *[0] * 12, 1, 4, 4])
    assert meteor(whole) == pytest.approx(1)
    assert meteor_addends(line) == line
    both = [x + y for x, y in zip(whole, line, strict=True)]
    assert meteor(both) == pytest.approx(0.75 * (1 - 0.6 * (2 / 6) ** 0.2))
    assert meteor([0.0] * 23) == 0
