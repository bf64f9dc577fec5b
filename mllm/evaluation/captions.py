"""Captions against references: CIDEr, BLEU, ROUGE-L and METEOR as coco-caption defines them (arXiv 1504.00325)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from mllm.errors import ConfigError, DataError
from mllm.evaluation.base import Evaluation, Evaluator, Failure
from mllm.evaluation.caption_scores import bleu, bleu_statistics, meteor, rouge_l
from mllm.evaluation.cider import CiderCorpus
from mllm.evaluation.java_tools import METEOR_COLUMNS, METEOR_JAR, PTB_JAR, JavaProblem, find_jar, ptb_tokens
from mllm.evaluation.java_tools import meteor_statistics as run_meteor
from mllm.evaluation.texts import EMPTY, answers_of, check_option
from mllm.registry import EVALUATORS
from mllm.structures import Record

TOKENIZERS = ("auto", "ptb", "plain", "none")
CIDERS = ("D", "original")
METEORS = ("auto", "off")
KEPT = 2
BLEUS = tuple(f"BLEU-{order}" for order in range(1, 5))
_WORD = re.compile(r"\w+(?:['’.-]\w+)*")


def plain_tokens(texts: Sequence[str]) -> list[str]:
    """Words in lower case, punctuation between them dropped, inside them (``it's``, ``3-year-old``) kept.

    For where Java is missing; its scores are not those of the Penn Treebank tokens.
    """
    return [" ".join(_WORD.findall(text.lower())) for text in texts]


def given_tokens(texts: Sequence[str]) -> list[str]:
    """The texts as they are, cut at white space."""
    return [" ".join(text.split()) for text in texts]


CUTTERS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "ptb": ptb_tokens,
    "plain": plain_tokens,
    "none": given_tokens,
}


@EVALUATORS.register_module()
class CaptionEvaluator(Evaluator):
    """CIDEr-D, BLEU-1 to -4 (corpus), ROUGE-L and METEOR 1.5 against the truth's ``references``; CIDEr is 10 at most.

    CIDEr's document frequencies come from the references evaluated together, so the score of a part is not that of the
    whole: merge the records of shards, never their scores. A caption of fewer than four words cannot reach full marks.

    Args:
        tokenizer: ``"ptb"`` – Penn Treebank tokens through Java and pycocoevalcap, what published numbers use;
            ``"plain"`` – ``plain_tokens``; ``"none"`` – cut at white space; ``"auto"`` – ptb where it is to be had,
            else plain. The signature names the one used.
        cider: ``"D"`` or ``"original"`` (neither clipped nor penalised for length; also times 10, words not stemmed).
        meteor: ``"auto"`` – where Java is to be had, else the signature says what is missing – or ``"off"``.
    """

    metrics: ClassVar[tuple[str, ...]] = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "BLEU-1", "BLEU-2", "BLEU-3")
    greatest: ClassVar[dict[str, float]] = {"CIDEr": 10.0}
    dimensions = ("category", "text_detected")

    def __init__(self, tokenizer: str = "auto", cider: str = "D", meteor: str = "auto") -> None:
        check_option(self, "tokenizer", tokenizer, TOKENIZERS)
        check_option(self, "cider", cider, CIDERS)
        check_option(self, "meteor", meteor, METEORS)
        self.cider, self.unavailable = cider, {}
        self.tokenizer = self._choose(tokenizer)
        self._fall_back = tokenizer == "auto"
        self._tokens: dict[str, str] = {}
        self._meteor: dict[str, list[float]] = {}
        self._corpora: list[CiderCorpus] = []
        if meteor == "off":
            self._without_meteor()
        elif problem := _problem(METEOR_JAR):
            self._without_meteor(problem)

    def caption_of(self, record: Record) -> str:
        """The text that is scored."""
        return record.pred

    def references_of(self, record: Record) -> list[str]:
        """The texts that it is scored against."""
        return answers_of(record, self, "references")

    def prepare(self, records: Sequence[Record]) -> None:
        """Tokenise all texts and run METEOR over them at once; without it they come one by one, slowly."""
        texts = [text for record in records for text in (self.caption_of(record), *self.references_of(record))]
        self._tokenize(texts)
        if "METEOR" in self.metrics:
            self._run_meteor([self._document(record, silent=record.failure is not None) for record in records])

    def parse(self, record: Record) -> str | Failure:
        """The caption; a Failure where it has no word."""
        caption = self.caption_of(record)
        self._tokenize([caption])
        return " ".join(caption.split()) if self._tokens[caption] else Failure(EMPTY)

    def statistics(self, value: str | Failure, record: Record) -> dict[str, Any]:
        """The tokens (caption and references, a line each), ROUGE-L, and the numbers that BLEU and METEOR add up."""
        document = self._document(record, silent=isinstance(value, Failure))
        lines = document.split("\n")
        caption, *references = [line.split() for line in lines]
        # coco-caption's ROUGE-L cuts at spaces alone, its BLEU and CIDEr at the no-break space of "1 1/2" as well.
        whole, *whole_references = [line.split(" ") if line else [] for line in lines]
        row = {
            "tokens": document,
            "ROUGE-L": rouge_l(whole, whole_references),
            "bleu": bleu_statistics(caption, references),
        }
        if "METEOR" in self.metrics:
            self._run_meteor([document])
            row["meteor"] = self._meteor.get(document)
        return row

    def reduce(self, statistics: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Corpus scores; document frequencies are those of the references among ``statistics``."""
        scores = {
            "CIDEr": float(np.mean(self.cider_scores(statistics))) if statistics else 0.0,
            "ROUGE-L": float(np.mean([row["ROUGE-L"] for row in statistics])) if statistics else 0.0,
            **dict(zip(BLEUS, bleu(row["bleu"] for row in statistics), strict=True)),
        }
        if "METEOR" in self.metrics:
            scores["METEOR"] = meteor(row["meteor"] for row in statistics)
        return {name: scores[name] for name in self.metrics if name in scores}

    def cider_scores(self, statistics: Sequence[dict[str, Any]]) -> np.ndarray:
        """CIDEr of each caption among ``statistics``."""
        documents = [row["tokens"] for row in statistics]
        return self._corpus(documents).scores(documents)

    def signature(self) -> str:
        """Protocol of the numbers, and what could not be had."""
        parts = ["caption", f"tok={self.tokenizer}", f"cider={self.cider}", "df=evaluated references"]
        parts += ["bleu=corpus,closest", "rouge=beta1.2"]
        parts += ["meteor=1.5,en,norm"] if "METEOR" in self.metrics else []
        parts += [f"{name}=n/a ({problem})" for name, problem in self.unavailable.items()]
        return "|".join(parts)

    def evaluate(self, records: Sequence[Record], **options: Any) -> Evaluation:
        """As for every evaluator; the score rows bear each caption's own CIDEr and METEOR as well."""
        evaluation = super().evaluate(records, **options)
        for row, score in zip(evaluation.scores, self.cider_scores(evaluation.scores), strict=True):
            row["CIDEr"] = float(score)
            if "METEOR" in self.metrics:
                row["METEOR"] = meteor([row["meteor"]])
        self._tokens, self._meteor = {}, {}
        return evaluation

    def _corpus(self, documents: Sequence[str]) -> CiderCorpus:
        """One that holds all the documents; two runs compared have one each, and their parts come again and again."""
        found = next((one for one in self._corpora if one.covers(documents)), None)
        if found is None:
            near = [one for one in self._corpora if 2 * sum(text in one.place for text in documents) > len(documents)]
            known = near[0].place if near else {}
            found = CiderCorpus([*known, *documents], self.cider)
            self._corpora = [found, *(one for one in self._corpora if one not in near[:1])][:KEPT]
        return found

    def _choose(self, tokenizer: str) -> str:
        problem = _problem(PTB_JAR) if tokenizer in ("auto", "ptb") else None
        if tokenizer == "ptb" and problem:
            raise ConfigError(f"{type(self).__name__}: tokenizer='ptb' needs Java and pycocoevalcap ({problem})")
        if tokenizer == "auto" and problem:
            self.unavailable["PTB"] = problem
        return {"auto": "plain" if problem else "ptb"}.get(tokenizer, tokenizer)

    def _without_meteor(self, problem: str = "") -> None:
        self.metrics = tuple(name for name in self.metrics if name != "METEOR")
        if problem:
            self.unavailable["METEOR"] = problem

    def _document(self, record: Record, silent: bool = False) -> str:
        texts = ["" if silent else self.caption_of(record), *self.references_of(record)]
        self._tokenize(texts)
        return "\n".join(self._tokens[text] for text in texts)

    def _tokenize(self, texts: Iterable[str]) -> None:
        new = list(dict.fromkeys(text for text in texts if text not in self._tokens))
        if not new:
            return
        try:
            self._tokens.update(zip(new, CUTTERS[self.tokenizer](new), strict=True))
        except JavaProblem as problem:
            # Half of the texts in other tokens would be no score at all.
            if not self._fall_back or self._tokens:
                raise ConfigError(f"{type(self).__name__}: the PTB tokenizer failed: {problem}") from problem
            self.tokenizer, self.unavailable["PTB"] = "plain", str(problem)
            self._tokens.update(zip(new, plain_tokens(new), strict=True))

    def _run_meteor(self, documents: Sequence[str]) -> None:
        new = list(dict.fromkeys(text for text in documents if text not in self._meteor))
        # METEOR compares with references; a record that could not be made may have none.
        self._meteor.update({text: [0.0] * METEOR_COLUMNS for text in new if "\n" not in text})
        lines = [text.split("\n") for text in new if "\n" in text]
        if not lines:
            return
        try:
            found = run_meteor([(caption, references) for caption, *references in lines])
        except JavaProblem as problem:
            self._without_meteor(str(problem))
            return
        self._meteor.update(zip(("\n".join(line) for line in lines), found, strict=True))


def challenge_captions(records: Sequence[Record]) -> list[dict[str, Any]]:
    """``[{"image_id": int, "caption": str}]``, one an image, as the COCO and VizWiz servers take it, by image id.

    An image that could not be captioned gets the empty caption. DataError where an id is missing, no number, or twice.
    """
    captions: dict[int, str] = {}
    for record in records:
        image_id = record.meta.get("image_id")
        if type(image_id) is not int and not (isinstance(image_id, str) and image_id.isdecimal()):
            raise DataError(f"record {record.index}: meta['image_id'] must be a whole number, got {image_id!r}")
        if int(image_id) in captions:
            raise DataError(
                f"record {record.index}: image {image_id} has a caption already; a challenge file has one each"
            )
        captions[int(image_id)] = "" if record.failure else " ".join(record.pred.split())
    return [{"image_id": image_id, "caption": caption} for image_id, caption in sorted(captions.items())]


def _problem(jar: str) -> str | None:
    try:
        find_jar(jar)
    except JavaProblem as problem:
        return str(problem)
    return None
