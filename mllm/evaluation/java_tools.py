"""The Java programs that pycocoevalcap carries: Penn Treebank tokens (CoreNLP 3.4.1) and METEOR 1.5.

They are run straight from their jars, over standard input and output: nothing is written into the package, so it may be
read-only and shared. Language and encoding are fixed, whatever the locale of the machine.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

PTB_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
METEOR_JAR = "meteor/meteor-1.5.jar"
FIXED = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")
# What coco-caption drops after tokenising (github tylin/coco-caption, ptbtokenizer.py).
DROPPED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
METEOR_COLUMNS = 23


class JavaProblem(Exception):
    """Why a Java program cannot be used here; the message reads well in brackets."""


def find_jar(name: str) -> tuple[str, Path]:
    """The program ``java`` and the jar ``name`` of pycocoevalcap; JavaProblem that says what to install."""
    java, spec = shutil.which("java"), find_spec("pycocoevalcap")
    if java is None:
        raise JavaProblem("Java is missing: apt-get install default-jre-headless")
    if spec is None or not spec.submodule_search_locations:
        raise JavaProblem("pycocoevalcap is missing: pip install 'mllm[caption]'")
    jar = Path(spec.submodule_search_locations[0]) / name
    if not jar.is_file():
        raise JavaProblem(f"pycocoevalcap has no {name}")
    return java, jar


def ptb_tokens(texts: Sequence[str]) -> list[str]:
    """Each text as its Penn Treebank tokens in lower case without punctuation, joined by spaces.

    White space is squeezed first: a line break within a text would shift all that follow. A token may hold a
    no-break space (``1 1/2``).
    """
    java, jar = find_jar(PTB_JAR)
    lines = [" ".join(text.split()) for text in texts]
    # Whether "5th Ave." ends a sentence is told from the next line's first letter: a line of ours makes it always so.
    spoken = [half for line in lines if line for half in (line, "A")]
    options = ("-preserveLines", "-lowerCase", "-encoding", "UTF-8")
    found = _run([java, *FIXED, "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", *options], spoken)
    tokens = iter(found[::2])
    return [
        " ".join(one for one in next(tokens).rstrip().split(" ") if one not in DROPPED) if line else ""
        for line in lines
    ]


def meteor_statistics(pairs: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
    """METEOR's 23 numbers for each (caption, references), both as tokens; against the reference that fits best."""
    java, jar = find_jar(METEOR_JAR)
    lines = [" ||| ".join(["SCORE", *map(_plain, references), _plain(caption)]) for caption, references in pairs]
    options = ("-", "-", "-stdio", "-l", "en", "-norm")
    found = _run([java, *FIXED, "-Xmx2G", "-jar", str(jar), *options], lines)
    statistics = [[float(number) for number in line.split()] for line in found]
    if any(len(numbers) != METEOR_COLUMNS for numbers in statistics):
        raise JavaProblem(f"METEOR's answer is not {METEOR_COLUMNS} numbers a caption")
    return statistics


def _plain(text: str) -> str:
    return text.replace("|||", "").replace("  ", " ")


def _run(command: Sequence[str], lines: Sequence[str]) -> list[str]:
    """One line of output for each line of input."""
    if not lines:
        return []
    content = ("\n".join(lines) + "\n").encode("utf-8", "replace")
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    found = done.stdout.decode("utf-8").split("\n")[:-1]
    if done.returncode or len(found) != len(lines):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"]
        raise JavaProblem(f"Java gave {len(found)} of {len(lines)} lines, status {done.returncode}: {said[-1]}")
    return found
