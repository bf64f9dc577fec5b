"""ScienceQA: multiple-choice questions of school science, with or without a picture, and LLaVA's conversion of it.

Layout: github lupantech/ScienceQA (Lu et al., NeurIPS 2022): ``problems.json`` ``{pid: {…}}``, ``pid_splits.json``,
images ``<split>/<pid>/image.png``. The prompt is that of haotian-liu/LLaVA's ``llava_test_CQM-A.json`` (context,
question, choices); A, ALE and LEA are the answer formats of the authors' code (answer, lecture, explanation).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.llava import image_names, turns_of
from mllm.dataset.rows import Row, open_rows
from mllm.dataset.tasks import check_choice, exchange
from mllm.errors import ConfigError, DataError, choices
from mllm.registry import DATASETS
from mllm.structures import IMAGE_PLACEHOLDER
from mllm.utils.files import read_json
from mllm.utils.storage import join, resolve_path

LETTERS = "ABCDE"
SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
IMAGES = ("all", "with", "without")
ANSWERS = ("letter", "A", "ALE", "LEA")
_SENTENCE = re.compile(r"The answer is ([A-E])\.")


@DATASETS.register_module()
class ScienceQA(RowDataset):
    """ScienceQA in its own layout, one item a problem of the split.

    The truth holds ``answer`` (a letter) and ``choices``; ``meta`` what the official table is broken down by:
    ``subject`` (NAT, SOC, LAN; also ``category``), ``context`` (TXT, IMG, or NO), ``grade`` (G1-6, G7-12), ``topic``.

    Args:
        root: the folder of ``problems.json`` and ``pid_splits.json``.
        image_root: the folder that holds ``<split>/<pid>/image.png``; ``root/images`` by default.
        split: train, val, test, trainval or one of the mini splits.
        images: ``"all"`` problems, those ``"with"`` an image, or those ``"without"``.
        answer: ``"letter"`` (B), ``"A"`` (The answer is B.), ``"ALE"`` (… BECAUSE: lecture solution), ``"LEA"``
            (lecture solution The answer is B.).
        instruction: a last line of the question, such as LLaVA-1.5's "Answer with the option's letter from the given
            choices directly."
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        root: str,
        image_root: str | None = None,
        split: str = "train",
        images: str = "all",
        answer: str = "letter",
        instruction: str = "",
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        check_choice(self, "images", images, IMAGES)
        check_choice(self, "answer", answer, ANSWERS)
        root = resolve_path(root)
        files = [join(root, name) for name in ("problems.json", "pid_splits.json")]
        rows = _split_rows(*files, split)
        if images != "all":
            rows = [row for row in rows if bool(row["image"]) == (images == "with")]
        super().__init__(rows, image_root=image_root or join(root, "images"), exif=exif, seed=seed, files=files)
        self.answer, self.instruction = answer, instruction

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One problem."""
        letter = answer_letter(row)
        turns = exchange(problem_prompt(row, self.instruction), answer_text(row, letter, self.answer))
        item: dict[str, Any] = {
            "conversations": turns,
            "truth": {"answer": letter, "choices": list(row["choices"])},
            "meta": {"source": type(self).__name__, "question_id": row["pid"], "image_id": row["pid"]},
        }
        item["meta"].update(categories(row))
        if row["image"]:
            item["image"] = self.image(f"{row['split']}/{row['pid']}/{row['image']}")
        return item

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of question, hint and, where they are answered with, lecture and solution; images)."""
        row = self.rows[index]
        fields = ("question", "hint", *(("lecture", "solution") if self.answer in ("ALE", "LEA") else ()))
        texts = [*(row.get(field) or "" for field in fields), *row["choices"]]
        return sum(map(len, texts)), int(bool(row["image"]))


@DATASETS.register_module()
class ScienceQACQMA(RowDataset):
    """ScienceQA as LLaVA converted it: a list of ``{"id", "image"?, "conversations"}`` with the choices in the text.

    ``problems`` names the official ``problems.json``; with it choices and categories come from there, without it the
    choices are read from the question and only ``context`` is known. ``image_root`` holds ``<pid>/image.png``.
    """

    def __init__(
        self,
        path: str,
        image_root: str | None = None,
        problems: str | None = None,
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        path = resolve_path(path)
        files = [path, *([resolve_path(problems)] if problems else [])]
        super().__init__(open_rows(path), image_root=image_root, exif=exif, seed=seed, files=files)
        self.problems = read_json(files[1]) if problems else None

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """One problem."""
        turns, names, pid = turns_of(row), image_names(row), row["id"]
        question, reply = turns[0]["value"], turns[-1]["value"]
        letter = _letter_of(reply)
        if letter is None:
            raise DataError(f"{row.place}: conversations[-1]: no letter and no 'The answer is X.' in {reply!r:.80}")
        meta = {"source": type(self).__name__, "question_id": pid, "image_id": pid}
        if self.problems is None:
            options = choices_of(question)
            if not options:
                raise DataError(f"{row.place}: no choices in {question[-80:]!r}; give problems=…/problems.json")
            meta["context"] = _context("Context: " in question and "Context: N/A" not in question, bool(names))
        else:
            problem = self._problem(pid, row.place)
            options = list(problem["choices"])
            meta.update(categories(problem))
        return {
            "images": [self.image(name) for name in names],
            "conversations": turns,
            "truth": {"answer": letter, "choices": options},
            "meta": meta,
        }

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of all turns, images)."""
        row = self.rows[index]
        return sum(len(turn["value"]) for turn in turns_of(row)), len(image_names(row))

    def _problem(self, pid: Any, place: str) -> Row:
        if pid not in self.problems:
            raise DataError(f"{place}: id {pid!r} is not in {self.files[1]!r}")
        return Row(self.problems[pid], f"{self.files[1]}[{pid}]")


def problem_prompt(problem: Mapping[str, Any], instruction: str = "") -> str:
    """The question as LLaVA's CQM form asks it: image, context where there is one, question, one choice a line."""
    hint = (problem["hint"] or "").strip()
    lines = [IMAGE_PLACEHOLDER] if problem["image"] else []
    lines += [f"Context: {hint}"] if hint else []
    lines += [problem["question"]]
    lines += [f"{letter}. {choice}" for letter, choice in zip(LETTERS, problem["choices"], strict=False)]
    return "\n".join([*lines, instruction] if instruction else lines)


def answer_letter(row: Row) -> str:
    """The letter of the right choice; DataError where ``answer`` is not the position of one."""
    answer, options = row["answer"], row["choices"]
    if not isinstance(answer, int) or not 0 <= answer < len(options) <= len(LETTERS):
        raise DataError(f"{row.place}: answer {answer!r} is not one of {len(options)} choices (at most {len(LETTERS)})")
    return LETTERS[answer]


def answer_text(problem: Mapping[str, Any], letter: str, style: str) -> str:
    """The answer in one of ``ANSWERS``."""
    if style == "letter":
        return letter
    sentence = f"The answer is {letter}."
    reasons = " ".join(filter(None, ((problem.get(key) or "").strip() for key in ("lecture", "solution"))))
    if style == "A" or not reasons:
        return sentence
    return f"{sentence} BECAUSE: {reasons}" if style == "ALE" else f"{reasons} {sentence}"


def categories(problem: Row) -> dict[str, Any]:
    """What the official evaluation groups by: subject, context, grade, topic; ``category`` repeats the subject."""
    subject = SUBJECTS.get(problem["subject"])
    if subject is None:
        raise DataError(
            f"{problem.place}: subject {problem['subject']!r}; {choices(str(problem['subject']), SUBJECTS)}"
        )
    grade = re.fullmatch(r"grade(\d+)", str(problem["grade"]))
    if grade is None:
        raise DataError(f"{problem.place}: grade {problem['grade']!r}: expected grade1 to grade12")
    return {
        "category": subject,
        "subject": subject,
        "context": _context(bool(problem["hint"]), bool(problem["image"])),
        "grade": "G1-6" if int(grade.group(1)) <= 6 else "G7-12",
        "topic": problem["topic"],
    }


def choices_of(question: str) -> list[str]:
    """The choices that end a CQM question: ``A. …``, ``B. …`` each from a new line, or ``(A) … (B) …``.

    A choice may itself hold line breaks (the closings of letters in ScienceQA do).
    """
    for mark in ("\n{}. ", "({}) "):
        start = question.rfind(mark.format("A"))
        if start < 0:
            continue
        found, rest = [], question[start + len(mark.format("A")) :]
        for letter in LETTERS[1:]:
            choice, separator, tail = rest.partition(mark.format(letter))
            if not separator:
                break
            found.append(choice.strip())
            rest = tail
        return [*found, rest.strip()]
    return []


def _context(has_text: bool, has_image: bool) -> list[str]:
    return [name for name, there in (("TXT", has_text), ("IMG", has_image)) if there] or ["NO"]


def _letter_of(reply: str) -> str | None:
    sentences = _SENTENCE.findall(reply)
    if len(sentences) == 1:
        return sentences[0]
    match = re.fullmatch(r"([A-E])\.?", reply.strip())
    return match.group(1) if match else None


def _split_rows(problems_path: str, splits_path: str, split: str) -> Sequence[Row]:
    problems, splits = read_json(problems_path), read_json(splits_path)
    if split not in splits:
        raise ConfigError(f"ScienceQA: no split {split!r} in {splits_path!r}; {choices(str(split), splits)}")
    missing = [pid for pid in splits[split] if pid not in problems]
    if missing:
        raise DataError(f"{splits_path}: problem {missing[0]!r} of split {split!r} is not in {problems_path!r}")
    return [Row({**problems[pid], "pid": pid}, f"{problems_path}[{pid}]") for pid in splits[split]]
