"""The Java programs that pycocoevalcap carries: Penn Treebank tokens (CoreNLP 3.4.1) and METEOR 1.5.

They are run straight from their jars, over standard input and output: nothing is written into the package, so it may be
read-only and shared. Language and encoding are fixed, whatever the locale of the machine. METEOR reads its tables for
some five seconds before its first line: a program may be started long before it is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import weakref
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


class JavaProgram:
    """A running program that answers a line for each line, once.

    It is ended when it has answered, when nobody holds it any more, and with the interpreter. A process forked from
    this one neither ends it nor keeps it waiting for more lines.
    """

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self.stop = weakref.finalize(self, _end, self._process)
        _RUNNING.add(self)

    def answer(self, lines: Sequence[str]) -> list[str]:
        """One line of output for each line of input; JavaProblem where there are more or fewer."""
        content = ("\n".join(lines) + "\n").encode("utf-8", "replace")
        try:
            said, complaint = self._process.communicate(content) if lines else (b"", b"")
        finally:
            self.stop()
        found = said.decode("utf-8").split("\n")[:-1]
        if len(found) != len(lines) or (lines and self._process.returncode):
            last = complaint.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"]
            status = self._process.returncode
            raise JavaProblem(f"Java gave {len(found)} of {len(lines)} lines, status {status}: {last[-1]}")
        return found

    def let_go(self) -> None:
        """Close the end of the pipe that a fork has copied: a program's input ends when every copy is closed."""
        self._process.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    # In a fork the process is no child, and ``Popen`` sends signals to children alone.
    with process:
        process.kill()


_RUNNING: weakref.WeakSet[JavaProgram] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [program.let_go() for program in _RUNNING])


def start_ptb() -> JavaProgram:
    """The Penn Treebank tokenizer."""
    java, jar = find_jar(PTB_JAR)
    options = ("-preserveLines", "-lowerCase", "-encoding", "UTF-8")
    return JavaProgram([java, *FIXED, "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", *options])


def start_meteor() -> JavaProgram:
    """METEOR, reading its tables."""
    java, jar = find_jar(METEOR_JAR)
    return JavaProgram([java, *FIXED, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"])


def ptb_tokens(texts: Sequence[str], program: JavaProgram | None = None) -> list[str]:
    """Each text as its Penn Treebank tokens in lower case without punctuation, joined by spaces.

    White space is squeezed first: a line break within a text would shift all that follow. A token may hold a
    no-break space (``1 1/2``). ``program`` is one that has been started.
    """
    lines = [" ".join(text.split()) for text in texts]
    # Whether "5th Ave." ends a sentence is told from the next line's first letter: a line of ours makes it always so.
    spoken = [half for line in lines if line for half in (line, "A")]
    tokens = iter((program or start_ptb()).answer(spoken)[::2])
    return [
        " ".join(one for one in next(tokens).rstrip().split(" ") if one not in DROPPED) if line else ""
        for line in lines
    ]


def meteor_statistics(
    pairs: Sequence[tuple[str, Sequence[str]]], program: JavaProgram | None = None
) -> list[list[float]]:
    """METEOR's 23 numbers for each (caption, references), both as tokens; against the reference that fits best.

    ``program`` is one that has been started.
    """
    lines = [" ||| ".join(["SCORE", *map(_plain, references), _plain(caption)]) for caption, references in pairs]
    statistics = [[float(number) for number in line.split()] for line in (program or start_meteor()).answer(lines)]
    if any(len(numbers) != METEOR_COLUMNS for numbers in statistics):
        raise JavaProblem(f"METEOR's answer is not {METEOR_COLUMNS} numbers a caption")
    return statistics


def _plain(text: str) -> str:
    return text.replace("|||", "").replace("  ", " ")
