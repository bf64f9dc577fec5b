"""Caption metrics beside pycocoevalcap: COCO's captions of 2017 val, each metric alone and all of them from the texts.

Run from the repository root: ``python tools/benchmark/captions.py --annotations captions_val2017.json``. Needs Java and
``mllm[caption]``. README.md beside this file says what is measured and how.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import interleaved, lines_of, show, write_csv
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider as TheirCider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from mllm.evaluation.caption_ngrams import CaptionNgrams
from mllm.evaluation.caption_scores import bleu, bleu_statistics, rouge_l
from mllm.evaluation.captions import CaptionEvaluator
from mllm.evaluation.cider import Cider
from mllm.evaluation.java_tools import ptb_tokens
from mllm.structures import Record

REFERENCES = 5
OURS, THEIRS, STARTED = "mllm", "pycocoevalcap", "mllm, Java started 12 s before"
Texts = dict[int, list[str]]


def read_captions(path: Path, images: int) -> tuple[Texts, Texts]:
    """References (five an image) and a prediction each: one of them with words lost and put in, always the same."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    references: Texts = {}
    for row in json.loads(content)["annotations"]:
        references.setdefault(row["image_id"], []).append(" ".join(row["caption"].split()))
    references = {image: texts[:REFERENCES] for image, texts in list(references.items())[:images]}
    rng = random.Random(0)
    words = [word for texts in references.values() for text in texts for word in text.split()]
    predictions = {}
    for image, texts in references.items():
        kept = [rng.choice(words) if rng.random() < 0.25 else word for word in rng.choice(texts).split()]
        predictions[image] = [" ".join(word for word in kept if rng.random() < 0.85)]
    return references, predictions


def their_tokens(texts: Texts) -> Texts:
    """As coco-caption's ``eval.py`` tokenises."""
    return PTBTokenizer().tokenize({image: [{"caption": one} for one in found] for image, found in texts.items()})


def their_whole(references: Texts, predictions: Texts) -> dict[str, Any]:
    """``COCOEvalCap.evaluate`` without SPICE: name → (score of all, scores of each)."""
    true, said = their_tokens(references), their_tokens(predictions)
    scorers = {"BLEU": Bleu(4), "METEOR": Meteor(), "ROUGE-L": Rouge(), "CIDEr": TheirCider()}
    with contextlib.redirect_stdout(None):
        return {name: scorer.compute_score(true, said) for name, scorer in scorers.items()}


def our_whole(records: list[Record], evaluator: CaptionEvaluator | None = None) -> Any:
    """All metrics from the texts."""
    return (evaluator or CaptionEvaluator(tokenizer="ptb")).evaluate(records, resamples=0)


def started(seconds: float) -> CaptionEvaluator:
    """An evaluator whose Java programs have been loading while a model generated."""
    evaluator = CaptionEvaluator(tokenizer="ptb")
    evaluator.start()
    time.sleep(seconds)
    return evaluator


def check_equal(ours: Any, theirs: dict[str, Any]) -> None:
    """Stop unless every score of every image is the same: to the last digit, METEOR to 1e-12."""
    whole_bleu, each_bleu = theirs["BLEU"]
    pairs = {
        "BLEU": ([ours.metrics[f"BLEU-{n}"] for n in range(1, 5)], whole_bleu),
        "BLEU of each": (
            [bleu(row["bleu"]) for row in ours.scores],
            [list(row) for row in zip(*each_bleu, strict=True)],
        ),
    }
    for name in ("ROUGE-L", "CIDEr"):
        pairs[name] = (ours.metrics[name], theirs[name][0])
        pairs[f"{name} of each"] = ([row[name] for row in ours.scores], theirs[name][1].tolist())
    wrong = [name for name, (mine, other) in pairs.items() if mine != other]
    meteor = [row["METEOR"] for row in ours.scores] + [ours.metrics["METEOR"]]
    apart = max(abs(a - b) for a, b in zip(meteor, [*theirs["METEOR"][1], theirs["METEOR"][0]], strict=True))
    if wrong or apart > 1e-12:
        raise SystemExit(f"the scores differ ({', '.join(wrong) or f'METEOR by {apart}'}); nothing was measured")
    print(f"equal to the last digit: {', '.join(pairs)}; METEOR within {apart:.1g}\n")


def our_bleu(ngrams: CaptionNgrams) -> list[float]:
    """BLEU of all captions, and the numbers of each."""
    return bleu([sum(column) for column in zip(*bleu_statistics(ngrams), strict=True)])


def contenders_of(references: Texts, predictions: Texts) -> dict[str, dict[str, Callable[[], Any]]]:
    """Measure → contender → what is timed; the metrics alone start from the same tokens."""
    true, said = their_tokens(references), their_tokens(predictions)
    documents = ["\n".join([said[image][0], *true[image]]) for image in true]
    texts = [text for image in references for text in (*predictions[image], *references[image])]

    def our_rouge() -> None:
        for document in documents:
            caption, *others = [line.split(" ") for line in document.split("\n")]
            rouge_l(caption, others)

    def our_three() -> None:
        ngrams = CaptionNgrams(documents)
        Cider(ngrams).scores(documents)
        our_bleu(ngrams)
        our_rouge()

    def their_three() -> None:
        for scorer in (Bleu(4), Rouge(), TheirCider()):
            scorer.compute_score(true, said, **({"verbose": 0} if isinstance(scorer, Bleu) else {}))

    return {
        "CIDEr": {
            OURS: lambda: Cider(CaptionNgrams(documents)).scores(documents),
            THEIRS: lambda: TheirCider().compute_score(true, said),
        },
        "BLEU": {
            OURS: lambda: our_bleu(CaptionNgrams(documents)),
            THEIRS: lambda: Bleu(4).compute_score(true, said, verbose=0),
        },
        "ROUGE-L": {
            OURS: our_rouge,
            THEIRS: lambda: Rouge().compute_score(true, said),
        },
        "CIDEr, BLEU and ROUGE-L": {OURS: our_three, THEIRS: their_three},
        "tokens": {
            OURS: lambda: ptb_tokens(texts),
            THEIRS: lambda: (their_tokens(references), their_tokens(predictions)),
        },
    }


def main() -> None:
    """Check, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, default="data/coco/annotations/captions_val2017.json")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default="docs/benchmark", help="folder of captions.csv")
    arguments = parser.parse_args()
    references, predictions = read_captions(arguments.annotations, arguments.images)
    records = [
        Record(number, str(image), predictions[image][0], truth={"references": references[image]})
        for number, image in enumerate(references)
    ]
    check_equal(our_whole(records), their_whole(references, predictions))
    results = []
    for measure, contenders in contenders_of(references, predictions).items():
        results += lines_of(measure, interleaved(contenders, arguments.rounds))
        show(results[-len(contenders) :])
    ready: list[CaptionEvaluator] = []
    whole = {
        OURS: lambda: our_whole(records),
        STARTED: lambda: our_whole(records, ready.pop()),
        THEIRS: lambda: their_whole(references, predictions),
    }
    taken: dict[str, list[float]] = {name: [] for name in whole}
    for number in range(arguments.rounds):
        for name in list(whole)[:: 1 if number % 2 == 0 else -1]:
            # Loading is what generation hides; it is not timed.
            ready += [started(12)] if name == STARTED else []
            taken[name] += interleaved({name: whole[name]}, 1)[name]
    results += lines_of("all, METEOR too, from the texts", taken)
    show(results[-len(whole) :])
    write_csv(arguments.out / "captions.csv", [{"images": len(records), **line} for line in results])


if __name__ == "__main__":
    main()
