"""The same digits as pycocoevalcap, on real captions; what needs it or Java is skipped where they are absent."""

import gzip
import json
import shutil
import threading

import pytest

from mllm.evaluation.caption_scores import bleu
from mllm.evaluation.java_tools import ptb_tokens
from mllm.registry import EVALUATORS
from mllm.structures import Record

pytest.importorskip("pycocoevalcap", reason="pip install 'mllm[caption]'")
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="apt-get install default-jre-headless")
IMAGES = 400


@pytest.fixture(scope="module")
def captions(shared_data):
    """The captions of the first images, by image."""
    path = shared_data / "coco_captions_val2017_full" / "captions_val2017.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))["annotations"]
    by_image = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(" ".join(row["caption"].split()))
    return dict(list(by_image.items())[:IMAGES])


def _evaluate(by_image, **options):
    evaluator = EVALUATORS.build({"type": "CaptionEvaluator", **options})
    records = [
        Record(n, str(image), first, truth={"references": others}, meta={"image_id": image})
        for n, (image, (first, *others)) in enumerate(by_image.items())
    ]
    return evaluator.evaluate(records, resamples=0)


@pytest.fixture(scope="module")
def split(captions):
    """Tokens as the evaluator takes them with ``tokenizer="none"``."""
    return {image: [" ".join(text.lower().split()) for text in texts] for image, texts in captions.items()}


@pytest.fixture(scope="module")
def oracle(split):
    """(references, predictions) in pycocoevalcap's form: caption 1 against the others."""
    return {image: texts[1:] for image, texts in split.items()}, {image: texts[:1] for image, texts in split.items()}


@pytest.fixture(scope="module")
def ours(split):
    return _evaluate(split, tokenizer="none", meteor="off")


def test_cider_d_is_equal_for_each_image_and_for_all(ours, oracle):
    from pycocoevalcap.cider.cider import Cider

    whole, each = Cider().compute_score(*oracle)
    assert [row["CIDEr"] for row in ours.scores] == each.tolist()
    assert ours.metrics["CIDEr"] == whole


def test_bleu_is_equal_for_each_image_and_for_all(ours, oracle):
    from pycocoevalcap.bleu.bleu import Bleu

    whole, each = Bleu(4).compute_score(*oracle, verbose=0)
    assert [ours.metrics[f"BLEU-{order}"] for order in range(1, 5)] == whole
    assert [bleu(row["bleu"]) for row in ours.scores] == [list(scores) for scores in zip(*each, strict=True)]


def test_rouge_l_is_equal_for_each_image_and_for_all(ours, oracle):
    from pycocoevalcap.rouge.rouge import Rouge

    whole, each = Rouge().compute_score(*oracle)
    assert [row["ROUGE-L"] for row in ours.scores] == each.tolist()
    assert ours.metrics["ROUGE-L"] == whole


@needs_java
def test_ptb_tokens_are_equal(captions):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    expected = PTBTokenizer().tokenize(
        {image: [{"caption": one} for one in texts] for image, texts in captions.items()}
    )
    assert ptb_tokens([one for texts in captions.values() for one in texts]) == [
        one for texts in expected.values() for one in texts
    ]


@needs_java
@pytest.mark.parametrize("gap", ["\r", "\v", "\f", "\u2028", "\n", "\x85", "\r\n"])
def test_white_space_within_a_caption_does_not_shift_the_others(gap):
    assert ptb_tokens([f"A dog{gap}runs.", "", "Two Cats"]) == ["a dog runs", "", "two cats"]


@needs_java
def test_tokens_do_not_depend_on_the_captions_around(captions):
    texts = ["Corner of 8th Ave. and 22 St.", "a café, (here)", "Made in the U.S."]
    alone = [ptb_tokens([text])[0] for text in texts]
    assert ptb_tokens(texts) == alone
    assert ptb_tokens(texts[::-1]) == alone[::-1]
    assert alone[1] == "a café -lrb- here -rrb-"


@needs_java
def test_other_locales_and_a_package_that_cannot_be_written_change_nothing(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    result = _evaluate({0: ["a café here", "a café there"], 1: ["two dogs", "two dogs"]})
    assert 0 < result.metrics["METEOR"] < 1
    assert "café" in result.scores[0]["tokens"]


@needs_java
def test_two_at_once_do_not_disturb_each_other(captions):
    texts = [[f"{one} {number}" for one in next(iter(captions.values()))] for number in range(2)]
    found = [None, None]
    threads = [threading.Thread(target=lambda n=n: found.__setitem__(n, ptb_tokens(texts[n]))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [ptb_tokens(one) for one in texts]


@needs_java
def test_meteor_is_the_jars_for_each_image_for_all_and_for_parts(captions):
    from pycocoevalcap.meteor.meteor import Meteor

    part = {image: texts[:] for image, texts in list(captions.items())[:60]}
    # One caption repeats a reference word for word, one has no word at all.
    (first, second) = list(part)[:2]
    part[first][0], part[second][0] = part[first][1], "..."
    result = _evaluate(part)
    lines = {image: row["tokens"].split("\n") for image, row in zip(part, result.scores, strict=True)}
    jar = Meteor()
    whole, each = jar.compute_score(
        {image: texts[1:] for image, texts in lines.items()}, {image: texts[:1] for image, texts in lines.items()}
    )
    assert [row["METEOR"] for row in result.scores] == pytest.approx(each, abs=1e-12)
    assert result.metrics["METEOR"] == pytest.approx(whole, abs=1e-12)
    assert result.metrics["METEOR"] != pytest.approx(sum(each) / len(each), abs=1e-6)
