"""Programs that load while a model generates: their answers, and their end in every case."""

import gc
import multiprocessing
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from mllm.evaluation import captions
from mllm.evaluation.java_tools import JavaProblem, JavaProgram
from mllm.registry import EVALUATORS
from mllm.structures import Record

needs_java = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pycocoevalcap") is None,
    reason="apt-get install default-jre-headless; pip install 'mllm[caption]'",
)
CAPTIONS = ["A dog runs.", "Two cats sleep on a bed.", "", "A man (left) rides a red horse."]
RECORDS = [
    Record(number, str(number), caption, truth={"references": ["a dog runs", caption or "nothing"]})
    for number, caption in enumerate(CAPTIONS)
]


def _runs(process_id):
    """Whether the process is there and no zombie."""
    try:
        with open(f"/proc/{process_id}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _id(program):
    return program._process.pid


def test_a_program_answers_a_line_for_a_line_and_is_gone():
    program = JavaProgram(["cat"])
    assert program.answer(["a", "é", ""]) == ["a", "é", ""]
    assert not os.path.exists(f"/proc/{_id(program)}")
    assert JavaProgram(["cat"]).answer([]) == []


def test_one_that_loses_a_line_is_noticed():
    with pytest.raises(JavaProblem, match="1 of 2 lines"):
        JavaProgram(["head", "-n", "1"]).answer(["a", "b"])


def test_one_that_has_died_is_told_with_its_last_words():
    with pytest.raises(JavaProblem, match="0 of 1 lines, status 3: out of heap"):
        JavaProgram(["sh", "-c", "echo out of heap >&2; exit 3"]).answer(["a"])


def test_a_program_that_nobody_holds_any_more_is_ended():
    program = JavaProgram(["sleep", "100"])
    process_id = _id(program)
    assert _runs(process_id)
    del program
    gc.collect()
    assert not os.path.exists(f"/proc/{process_id}")


@pytest.mark.parametrize("end", ["", "raise SystemExit('the run failed')"])
def test_a_program_ends_with_the_interpreter(end):
    text = (
        "from mllm.evaluation.java_tools import JavaProgram\n"
        "program = JavaProgram(['sleep', '100'])\n"
        f"print(program._process.pid, flush=True)\n{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert not _runs(int(done.stdout))


def test_a_forked_worker_neither_ends_a_program_nor_keeps_it_waiting():
    context = multiprocessing.get_context("fork")
    program, stay = JavaProgram(["cat"]), context.Event()
    ended = context.Process(target=program.stop)
    ended.start()
    ended.join()
    waiting = context.Process(target=stay.wait, args=(60,))
    waiting.start()
    try:
        # cat ends when the last copy of its pipe is closed: with the worker's still open this would never return.
        program._process.communicate(b"a\n", timeout=20)
        assert program._process.returncode == 0
    finally:
        stay.set()
        waiting.join()


def _captions(**options):
    return EVALUATORS.build({"type": "CaptionEvaluator", **options})


@needs_java
def test_programs_started_before_give_the_same_digits():
    early, late = _captions(), _captions()
    early.start()
    started = dict(early._programs)
    assert set(started) == {"ptb", "meteor"}
    first, second = early.evaluate(RECORDS), late.evaluate(RECORDS)
    assert (first.metrics, first.scores, first.intervals) == (second.metrics, second.scores, second.intervals)
    assert 0 < first.metrics["METEOR"] < 1
    # The processes that were started are those that answered.
    assert [program._process.returncode for program in started.values()] == [0, 0]
    # The next evaluation starts its own.
    assert early.evaluate(RECORDS).metrics == first.metrics


@needs_java
def test_starting_twice_starts_once():
    evaluator = EVALUATORS.build({"type": "GroundedCaptionEvaluator", "tokenizer": "plain"})
    evaluator.start()
    (program,) = evaluator._programs.values()
    evaluator.start()
    assert evaluator._programs["meteor"] is program


@needs_java
def test_a_started_program_that_dies_costs_its_metric_alone():
    evaluator = _captions(tokenizer="plain")
    evaluator.start()
    evaluator._programs["meteor"]._process.kill()
    result = evaluator.evaluate(RECORDS)
    assert "METEOR=n/a (Java gave 0 of 4 lines, status -9" in result.signature
    assert result.metrics["ROUGE-L"] > 0
    assert "METEOR" not in result.metrics


def test_what_is_not_wanted_is_not_started(monkeypatch):
    monkeypatch.setattr(captions, "start_meteor", None)
    monkeypatch.setattr(captions, "start_ptb", None)
    evaluator = _captions(tokenizer="plain", meteor="off")
    evaluator.start()
    assert evaluator.evaluate(RECORDS).metrics["ROUGE-L"] > 0


def test_programs_are_ended_where_the_records_are_no_good(monkeypatch):
    monkeypatch.setattr(captions, "find_jar", lambda jar: ("java", jar))
    monkeypatch.setattr(captions, "start_meteor", lambda: JavaProgram(["sleep", "100"]))
    evaluator = _captions(tokenizer="none")
    evaluator.start()
    process_id = _id(evaluator._programs["meteor"])
    with pytest.raises(Exception, match="needs texts in the truth's 'references'"):
        evaluator.evaluate([Record(0, "0", "a", truth={})])
    assert not _runs(process_id)
