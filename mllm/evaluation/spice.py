"""SPICE (arXiv 1607.08822): F1 of the scene graphs of caption and references, by its authors' program.

The program is AGPL and needs CoreNLP 3.6.0, which nothing here fetches.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllm.errors import ConfigError, DataError
from mllm.evaluation.base import Evaluator, Failure
from mllm.evaluation.java_tools import JavaProblem, find_jar
from mllm.evaluation.texts import EMPTY, answers_of
from mllm.registry import EVALUATORS
from mllm.structures import Record
from mllm.utils.storage import resolve_path

JAR, MAIN = "spice/spice-1.0.jar", "edu.anu.spice.SpiceScorer"
NEEDED = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
PLACES = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"


@EVALUATORS.register_module()
class SPICEEvaluator(Evaluator):
    """Mean SPICE F1 over images, in [0, 1]; ``corenlp`` is the folder with CoreNLP 3.6.0 and its models.

    It runs the jar of pycocoevalcap (``mllm[caption]``) with a Java heap of ``memory``; its files are temporary.
    ConfigError where Java, the jar or CoreNLP is missing, with what to do.
    """

    metrics = ("SPICE",)

    def __init__(self, corenlp: str, memory: str = "8G") -> None:
        self.corenlp, self.memory = Path(resolve_path(corenlp)), memory
        try:
            self.java, self.jar = find_jar(JAR)
        except JavaProblem as problem:
            raise ConfigError(f"SPICEEvaluator: {problem}") from problem
        missing = [name for name in NEEDED if not (self.corenlp / name).is_file()]
        if missing:
            raise ConfigError(
                f"SPICEEvaluator: corenlp={str(corenlp)!r} has no {missing[0]}; unpack {PLACES} and name its folder"
            )
        self._scores: dict[int, float] = {}

    def prepare(self, records: Sequence[Record]) -> None:
        """One run of the program over all captions."""
        said = [record for record in records if record.failure is None and record.pred.strip()]
        rows = [
            {"image_id": one.index, "test": one.pred.strip(), "refs": answers_of(one, self, "references", "answers")}
            for one in said
        ]
        self._scores = self._run(rows) if rows else {}

    def parse(self, record: Record) -> Any:
        """The caption; a Failure for an empty one."""
        return record.pred.strip() or Failure(EMPTY)

    def statistics(self, value: Any, record: Record) -> dict[str, Any]:
        """The caption's F1."""
        return {"SPICE": 0.0 if isinstance(value, Failure) else self._scores[record.index]}

    def signature(self) -> str:
        """Program and version."""
        return "spice|program=1.0|corenlp=3.6.0|mean=images"

    def _run(self, rows: Sequence[dict[str, Any]]) -> dict[int, float]:
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder) / "in.json", Path(folder) / "out.json"
            asked.write_text(json.dumps(rows), encoding="utf-8")
            paths = os.pathsep.join([str(self.jar), str(self.jar.parent / "lib" / "*"), str(self.corenlp / "*")])
            command = [self.java, f"-Xmx{self.memory}", "-cp", paths, MAIN, str(asked)]
            done = subprocess.run(
                [*command, "-out", str(answered), "-subset", "-silent"], capture_output=True, text=True
            )
            if done.returncode or not answered.is_file():
                said = done.stderr.strip().splitlines() or ["it says nothing"]
                raise DataError(f"SPICEEvaluator: the program ended with status {done.returncode}: {said[-1]}")
            found = json.loads(answered.read_text(encoding="utf-8"))
        scores = {row["image_id"]: row["scores"]["All"]["f"] for row in found}
        lost = [row["image_id"] for row in rows if row["image_id"] not in scores]
        if lost:
            raise DataError(f"SPICEEvaluator: the program scored all but {len(lost)} captions, first index {lost[0]}")
        # It writes NaN where neither caption nor references hold a proposition.
        return {index: score if score == score else 0.0 for index, score in scores.items()}
