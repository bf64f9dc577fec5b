"""RS-instructions of RS-LLaVA, and RS4: captions and questions on remote-sensing images from several data sets.

Layout: github BigData-KSU/RS-LLaVA (``NWPU-RSICD-UAV-UCM-LR-DOTA-intrcutions.json``; Bazi et al., Remote Sensing 16(9)
1477, 2024), LLaVA's list with one record an image, whose first folder names the data set it was taken from.
"""

from __future__ import annotations

import random
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mllm.dataset.base import RowDataset
from mllm.dataset.llava import image_names, turns_of
from mllm.dataset.rows import Row, open_rows
from mllm.dataset.rsivqa import question_type
from mllm.dataset.tasks import check_choice, exchange
from mllm.errors import ConfigError, DataError, choices
from mllm.registry import DATASETS
from mllm.structures import IMAGE_PLACEHOLDER
from mllm.utils.storage import resolve_path

TASKS = {"NWPU": "caption", "RSICD": "caption", "UAV": "caption", "UCM": "caption", "LR": "vqa", "DOTA": "vqa"}
RS4 = ("NWPU", "RSICD", "LR", "DOTA")
TURNS = ("all", "each", "once")
WHOLE = -1


@DATASETS.register_module()
class RSInstructions(RowDataset):
    """RS-instructions and RS4: whole conversations to train on, or single questions to evaluate with.

    Images stand in ``NWPU/NWPU_images``, ``RSICD/images``, ``LR/Train`` and ``DOTA/images`` below ``image_root``.
    ``meta["category"]`` is the sub-dataset, ``meta["task"]`` is caption or vqa, ``meta["question_type"]`` the kind of a
    question. ``dropped`` counts the records of sub-datasets that were not asked for.

    Args:
        path: the annotation file.
        image_root: the folder that ``image`` starts from (``imagenes``).
        subsets: the sub-datasets to keep; the default is RS4.
        turns: ``"all"`` – one item a record, the whole conversation; ``"each"`` – one item a question; ``"once"`` –
            the same, but an image is asked for its caption once, which is what caption metrics count.
        exif: what to do with turned photographs, as for every data set.
        seed: as for every data set.
    """

    def __init__(
        self,
        path: str,
        image_root: str,
        subsets: Sequence[str] = RS4,
        turns: str = "all",
        exif: str = "error",
        seed: int = 0,
    ) -> None:
        check_choice(self, "turns", turns, TURNS)
        for name in subsets:
            if name not in TASKS:
                raise ConfigError(f"RSInstructions: no sub-dataset {name!r}; {choices(str(name), TASKS)}")
        path = resolve_path(path)
        records = open_rows(path)
        self.dropped: Counter[str] = Counter()
        rows = _Questions(records, *self._select(records, set(subsets), turns))
        if not len(rows):
            have = ", ".join(f"{name} ({count})" for name, count in self.dropped.items()) or "nothing"
            raise DataError(f"{path}: no record of {', '.join(subsets)}; the file has {have}")
        super().__init__(rows, image_root=image_root, exif=exif, seed=seed, files=[path])

    def build(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """The whole conversation, or one question of it."""
        name, turns, number = image_names(row)[0], turns_of(row), row["question_number"]
        subset = name.split("/")[0]
        meta = {
            "source": type(self).__name__,
            "image_id": name,
            "question_id": str(row.get("id", name)) + (f"#{number}" if number != WHOLE else ""),
            "category": subset,
            "task": TASKS[subset],
        }
        if number != WHOLE:
            question, answer = _pair(turns, number, row.place)
            turns = exchange(f"{IMAGE_PLACEHOLDER}\n{question}", answer)
        truth: dict[str, Any] = {}
        if TASKS[subset] == "caption":
            truth["references"] = [turn["value"].strip() for turn in turns_of(row)[1::2]]
        elif number != WHOLE:
            truth = {"question": question, "answers": [answer], "references": [answer]}
            meta["question_type"] = lr_question_type(question) if subset == "LR" else question_type(question, answer)
        return {"image": self.image(name), "conversations": turns, "truth": truth, "meta": meta}

    def length_hint(self, index: int) -> tuple[int, int]:
        """(characters of the turns asked for, one image)."""
        row = self.rows[index]
        turns, number = turns_of(row), row["question_number"]
        chosen = turns if number == WHOLE else turns[2 * number : 2 * number + 2]
        return sum(len(turn["value"]) for turn in chosen), 1

    def _select(self, records: Sequence[Row], subsets: set[str], turns: str) -> tuple[array, array]:
        kept, numbers = array("q"), array("q")
        for index, record in enumerate(records):
            names = image_names(record)
            subset = names[0].split("/")[0] if names else "no image"
            if subset not in subsets:
                self.dropped[subset] += 1
                continue
            asked = range(len(turns_of(record)) // 2)
            if turns == "all":
                asked = [WHOLE]
            elif turns == "once" and TASKS[subset] == "caption":
                asked = asked[:1]
            kept.extend([index] * len(asked))
            numbers.extend(asked)
        return kept, numbers


class _Questions(Sequence):
    """Records, or questions of records, each a row with its ``question_number`` (``WHOLE`` for all of them)."""

    def __init__(self, records: Sequence[Row], kept: array, numbers: array) -> None:
        self.records, self.kept, self.numbers = records, kept, numbers

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Row:
        record = self.records[self.kept[index]]
        return Row({**record, "question_number": self.numbers[index]}, record.place)


def lr_question_type(question: str) -> str:
    """The type of an RSVQA-LR question from its words: rural_urban, comp, count or presence.

    The four ways of asking are those of Lobry et al. (IEEE TGRS 58(12), 2020), whose files give the type itself.
    """
    words = question.lower()
    if "rural" in words:
        return "rural_urban"
    if re.search(r"\b(?:more|less) .+ than\b|\bequal to\b", words):
        return "comp"
    return "count" if re.search(r"\b(?:number|amount) of\b|\bhow many\b", words) else "presence"


def _pair(turns: Sequence[dict[str, Any]], number: int, place: str) -> tuple[str, str]:
    human, model = turns[2 * number : 2 * number + 2]
    if (human.get("from"), model.get("from")) != ("human", "gpt"):
        raise DataError(f"{place}: conversations[{2 * number}]: expected a human turn and its answer")
    return human["value"].replace(IMAGE_PLACEHOLDER, "").strip(), model["value"].strip()
