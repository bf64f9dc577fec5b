"""The road to the program and back; a stand-in answers in its place, as CoreNLP's models cannot be had here."""

import os
import stat
import sys

import pytest

from mllm.errors import ConfigError, DataError
from mllm.evaluation.spice import NEEDED, SPICEEvaluator
from mllm.structures import Record

pytest.importorskip("pycocoevalcap", reason="needs pip install 'mllm[caption]'")
# F1 of the words, in the form of SPICE's output; "nothing" has no proposition.
PROGRAM = """#!{python}
import json, sys
words = sys.argv[1:]
assert words[0] == "-Xmx8G" and words[1] == "-cp" and words[3] == "edu.anu.spice.SpiceScorer", words
assert "spice-1.0.jar" in words[2] and "corenlp" in words[2]
rows = json.load(open(words[4]))
if any(row["test"] == "break" for row in rows):
    sys.exit("out of memory")
found = []
for row in rows:
    said, known = set(row["test"].split()), set(" ".join(row["refs"]).split())
    f = float("nan") if row["test"] == "nothing" else 2 * len(said & known) / (len(said) + len(known))
    found.append({{"image_id": row["image_id"], "scores": {{"All": {{"f": f}}}}}})
json.dump(found, open(words[words.index("-out") + 1], "w"))
"""


@pytest.fixture
def corenlp(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "java"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "corenlp"
    folder.mkdir()
    for name in NEEDED:
        (folder / name).touch()
    return folder


def _records(*captions):
    truth = {"references": ["a red dog", "a dog"]}
    return [Record(index, str(index), caption, truth=truth) for index, caption in enumerate(captions)]


def test_scores_are_means_of_what_the_program_gives(corenlp):
    result = SPICEEvaluator(str(corenlp)).evaluate(_records("a red dog", "a cat", "", "nothing"))
    # 1; a shared of 2 and 3 words: 2 / 5; empty and without a proposition 0
    assert result.metrics["SPICE"] == pytest.approx((1 + 2 / 5) / 4)
    assert result.metrics["failure_rate"] == 0.25
    assert "corenlp=3.6.0" in result.signature


def test_a_program_that_fails_is_an_error_with_its_last_words(corenlp):
    with pytest.raises(DataError, match="status 1: out of memory"):
        SPICEEvaluator(str(corenlp)).evaluate(_records("break"))


def test_what_is_missing_is_named(corenlp, monkeypatch):
    (corenlp / NEEDED[1]).unlink()
    with pytest.raises(ConfigError, match=f"has no {NEEDED[1]}; unpack https://nlp.stanford.edu"):
        SPICEEvaluator(str(corenlp))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="Java is missing: apt-get install"):
        SPICEEvaluator(str(corenlp))
