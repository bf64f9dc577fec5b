"""Captions against references: CIDEr, BLEU, ROUGE-L and METEOR as coco-caption defines them (arXiv 1504.00325)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mllm.errors import ConfigError
from mllm.evaluation.base import SAMPLES, Evaluation, Evaluator, Failure
from mllm.evaluation.caption_ngrams import CaptionNgrams
from mllm.evaluation.caption_scores import bleu, bleu_statistics, meteor, meteor_addends, rouge_l
from mllm.evaluation.caption_tokens import TOKENIZERS, plain_tokens, tokens_of
from mllm.evaluation.cider import VARIANTS, Cider
from mllm.evaluation.draws import Addends, Draw, Rows, Sums
from mllm.evaluation.java_tools import (
    METEOR_COLUMNS,
    METEOR_JAR,
    PTB_JAR,
    JavaProblem,
    JavaProgram,
    find_jar,
    start_meteor,
    start_ptb,
)
from mllm.evaluation.java_tools import meteor_statistics as run_meteor
from mllm.evaluation.texts import EMPTY, answers_of, check_option
from mllm.registry import EVALUATORS
from mllm.structures import Record

METEORS = ("auto", "off")
KEPT = 2
BLEUS = tuple(f"BLEU-{order}" for order in range(1, 5))
BLEU_SUMS = tuple(("bleu", place) for place in range(10))
METEOR_SUMS = tuple(("meteor", place) for place in range(METEOR_COLUMNS))


@EVALUATORS.register_module()
class CaptionEvaluator(Evaluator):
    """CIDEr-D, BLEU-1 to -4 (corpus), ROUGE-L and METEOR 1.5 against the truth's ``references``; CIDEr is 10 at most.

    CIDEr's document frequencies come from the references evaluated together, so the score of a part is not that of the
    whole: merge the records of shards, never their scores. A caption of fewer than four words cannot reach full marks.

    Args:
        tokenizer: ``"ptb"`` – Penn Treebank tokens through Java and pycocoevalcap, what published numbers use;
            ``"plain"`` – ``plain_tokens``; ``"none"`` – cut at white space; ``"auto"`` – ptb where it is to be had,
            else plain. The signature names the one used.
        cider: ``"D"``; ``"original"`` (neither clipped nor penalised for length; also times 10, words not stemmed); or
            ``"R"`` (penalised for repetition and relative length: long captions, few references; arXiv 2109.13701).
        meteor: ``"auto"`` – where Java is to be had, else the signature says what is missing – or ``"off"``.
    """

    metrics: ClassVar[tuple[str, ...]] = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "BLEU-1", "BLEU-2", "BLEU-3")
    greatest: ClassVar[dict[str, float]] = {"CIDEr": 10.0}
    dimensions = ("category", "text_detected")

    def __init__(self, tokenizer: str = "auto", cider: str = "D", meteor: str = "auto") -> None:
        check_option(self, "tokenizer", tokenizer, TOKENIZERS)
        check_option(self, "cider", cider, VARIANTS)
        check_option(self, "meteor", meteor, METEORS)
        self.cider, self.unavailable = cider, {}
        self.tokenizer = self._choose(tokenizer)
        self._fall_back = tokenizer == "auto"
        self._tokens: dict[str, str] = {}
        self._meteor: dict[str, list[float]] = {}
        self._bleu: dict[str, list[int]] = {}
        self._corpora: list[Cider] = []
        self._programs: dict[str, JavaProgram] = {}
        if meteor == "off":
            self._without_meteor()
        elif problem := _problem(METEOR_JAR):
            self._without_meteor(problem)

    def start(self) -> None:
        """Start METEOR, which reads tables for seconds, and the tokenizer; ``evaluate`` does so where nobody has."""
        wanted = {"ptb": self.tokenizer == "ptb", "meteor": "METEOR" in self.metrics}
        for name, start in (("meteor", start_meteor), ("ptb", start_ptb)):
            if wanted[name] and name not in self._programs:
                # What cannot be started is told by the evaluation.
                with contextlib.suppress(JavaProblem):
                    self._programs[name] = start()

    def caption_of(self, record: Record) -> str:
        """The text that is scored."""
        return record.pred

    def references_of(self, record: Record) -> list[str]:
        """The texts that it is scored against."""
        return answers_of(record, self, "references")

    def prepare(self, records: Sequence[Record]) -> None:
        """Tokenise, count n-grams and run METEOR over all texts at once; without it they come one by one, slowly."""
        self.start()
        texts = [text for record in records for text in (self.caption_of(record), *self.references_of(record))]
        self._tokenize(texts)
        documents = [self._document(record, silent=record.failure is not None) for record in records]
        # METEOR reads its tables meanwhile.
        self._count(documents)
        self._run_meteor(documents)

    def parse(self, record: Record) -> str | Failure:
        """The caption; a Failure where it has no word."""
        caption = self.caption_of(record)
        self._tokenize([caption])
        return " ".join(caption.split()) if self._tokens[caption] else Failure(EMPTY)

    def statistics(self, value: str | Failure, record: Record) -> dict[str, Any]:
        """The tokens (caption and references, a line each), ROUGE-L, and the numbers that BLEU and METEOR add up."""
        document = self._document(record, silent=isinstance(value, Failure))
        # coco-caption's ROUGE-L cuts at spaces alone, its BLEU and CIDEr at the no-break space of "1 1/2" as well.
        caption, *references = [line.split(" ") if line else [] for line in document.split("\n")]
        self._count([document])
        self._run_meteor([document])
        row = {"tokens": document, "ROUGE-L": rouge_l(caption, references), "bleu": self._bleu[document]}
        return {**row, "meteor": self._meteor.get(document)} if "METEOR" in self.metrics else row

    def addends(self, row: Mapping[str, Any]) -> Addends:
        """ROUGE-L, and the numbers of BLEU and METEOR."""
        found = {SAMPLES: 1, "ROUGE-L": row["ROUGE-L"], **dict(zip(BLEU_SUMS, row["bleu"], strict=True))}
        if row.get("meteor") is None:
            return found
        return {**found, "meteor": 1, **dict(zip(METEOR_SUMS, meteor_addends(row["meteor"]), strict=True))}

    def from_sums(self, sums: Sums) -> dict[str, float]:
        """All but CIDEr; METEOR where every row has its numbers."""
        scores = dict(zip(BLEUS, bleu([sums[key] for key in BLEU_SUMS]), strict=True))
        scores["ROUGE-L"] = sums["ROUGE-L"] / max(sums[SAMPLES], 1)
        if "METEOR" in self.metrics and sums["meteor"] == sums[SAMPLES]:
            scores["METEOR"] = meteor([sums[key] for key in METEOR_SUMS])
        return scores

    def reduce(self, statistics: Rows) -> dict[str, float]:
        """Corpus scores; document frequencies are those of the references among ``statistics``."""
        scores = super().reduce(statistics)
        if statistics:
            # numpy's mean, as coco-caption takes it: its sums run in another order.
            scores["ROUGE-L"] = float(np.mean([row["ROUGE-L"] for row in statistics]))
        scores["CIDEr"] = float(np.mean(self.cider_scores(statistics))) if statistics else 0.0
        return {name: scores[name] for name in self.metrics if name in scores}

    def drawn(self, statistics: Rows, clusters: np.ndarray) -> Draw:
        """As for every evaluator; CIDEr's document frequencies are those of each draw."""
        others, documents = super().drawn(statistics, clusters), [row["tokens"] for row in statistics]
        cider = self._corpus(documents).drawn(documents, clusters)
        return lambda times: {**others(times), "CIDEr": cider(times)}

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
        try:
            evaluation = super().evaluate(records, **options)
        finally:
            self._programs.clear()
        for row, score in zip(evaluation.scores, self.cider_scores(evaluation.scores), strict=True):
            row["CIDEr"] = float(score)
            if "METEOR" in self.metrics:
                row["METEOR"] = meteor(meteor_addends(row["meteor"]))
        self._tokens, self._meteor, self._bleu = {}, {}, {}
        return evaluation

    def _corpus(self, documents: Sequence[str]) -> Cider:
        """One that holds all the documents; two runs compared have one each, and their parts come again and again."""
        found = next((one for one in self._corpora if one.ngrams.covers(documents)), None)
        if found is None:
            known = [one.ngrams.place for one in self._corpora]
            near = next((one for one in known if 2 * sum(text in one for text in documents) > len(documents)), {})
            found = Cider(CaptionNgrams([*near, *documents]), self.cider)
            self._corpora = [found, *(one for one in self._corpora if one.ngrams.place is not near)][:KEPT]
        return found

    def _count(self, documents: Sequence[str]) -> None:
        """BLEU's numbers of documents that are new."""
        if any(text not in self._bleu for text in documents):
            ngrams = self._corpus(documents).ngrams
            self._bleu.update(zip(ngrams.place, bleu_statistics(ngrams), strict=True))

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
            found = tokens_of(new, self.tokenizer, self._programs.pop("ptb", None))
        except JavaProblem as problem:
            # Half of the texts in other tokens would be no score at all.
            if not self._fall_back or self._tokens:
                raise ConfigError(f"{type(self).__name__}: the PTB tokenizer failed: {problem}") from problem
            self.tokenizer, self.unavailable["PTB"] = "plain", str(problem)
            found = plain_tokens(new)
        self._tokens.update(zip(new, found, strict=True))

    def _run_meteor(self, documents: Sequence[str]) -> None:
        """METEOR's numbers of documents that are new, unless it cannot be had."""
        if "METEOR" not in self.metrics:
            return
        new = list(dict.fromkeys(text for text in documents if text not in self._meteor))
        # METEOR compares with references; a record that could not be made may have none.
        self._meteor.update({text: [0.0] * METEOR_COLUMNS for text in new if "\n" not in text})
        lines = [text.split("\n") for text in new if "\n" in text]
        if not lines:
            return
        try:
            pairs = [(caption, references) for caption, *references in lines]
            found = run_meteor(pairs, self._programs.pop("meteor", None))
        except JavaProblem as problem:
            self._without_meteor(str(problem))
            return
        self._meteor.update(zip(("\n".join(line) for line in lines), found, strict=True))


def _problem(jar: str) -> str | None:
    try:
        find_jar(jar)
    except JavaProblem as problem:
        return str(problem)
    return None
