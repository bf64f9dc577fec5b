"""Predictions meet their truths: by id, by image and question, or by order where the protocol says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mllm.engine.records import first
from mllm.errors import ConfigError, DataError, choices
from mllm.pipeline.scoring.predictions import Prediction, Question
from mllm.pipeline.scoring.truths import Truth
from mllm.structures import Record

Pairs = list[tuple[Prediction, int]]


def select(
    predictions: list[Prediction], truths: list[Truth], questions: Sequence[Question], wanted: Mapping[str, str]
) -> tuple[list[Prediction], list[Truth]]:
    """Those that ``wanted`` (field → value) asks for, judged by the questions' fields, else by the truths'."""
    for name, value in wanted.items():
        if any(name in question.fields for question in questions):
            kept = {one.ids["question_id"] for one in questions if _is(one.fields.get(name), value)}
            _some(kept, name, value, [one.fields.get(name) for one in questions])
            predictions = [one for one in predictions if one.ids.get("question_id") in kept]
        else:
            chosen = [one for one in truths if _is(one.meta.get(name), value)]
            _some(chosen, name, value, [one.meta.get(name) for one in truths])
            left_out = _ids(truths) - _ids(chosen)
            predictions = [one for one in predictions if not left_out & set(one.ids.items())]
            truths = chosen
    return predictions, truths


def attach(predictions: Sequence[Prediction], truths: Sequence[Truth], questions: Sequence[Question]) -> None:
    """Give the truths their questions, and the predictions the category of theirs, as far as ``questions`` tell."""
    found = {one.ids["question_id"]: one for one in questions}
    for one in truths:
        question = found.get(one.ids.get("question_id", ""))
        if question and one.question is None and "image_id" in question.ids:
            one.question = question.text
    for one in predictions:
        question = found.get(one.ids.get("question_id", ""))
        category = question.fields.get("category") if question else None
        if category is not None and category != "default":
            one.category = one.category or str(category)


def join(
    predictions: Sequence[Prediction], truths: Sequence[Truth], *, by_order: bool, allow_partial: bool = False
) -> list[Record]:
    """A record for each prediction, its index that of the truth; DataError naming the ids that do not match."""
    pairs = _by_keys(predictions, truths, allow_partial)
    if pairs is None and by_order:
        pairs = _by_order(predictions, truths)
    if pairs is None:
        raise DataError(_mismatch(predictions, truths))
    for prediction, place in pairs:
        _check_question(prediction, truths[place])
    return [_record(prediction, place, truths[place]) for prediction, place in sorted(pairs, key=lambda pair: pair[1])]


def _by_keys(predictions: Sequence[Prediction], truths: Sequence[Truth], allow_partial: bool) -> Pairs | None:
    for of_prediction, of_truth in _key_functions(predictions, truths):
        mine, theirs = [of_prediction(one) for one in predictions], [of_truth(one) for one in truths]
        places = {key: place for place, key in enumerate(theirs)}
        unique = len(set(mine)) == len(mine) and len(places) == len(theirs) and None not in (*mine, *theirs)
        if unique and (set(mine) == places.keys() or (allow_partial and set(mine) < places.keys())):
            return [(one, places[key]) for one, key in zip(predictions, mine, strict=True)]
    return None


def _key_functions(predictions: Sequence[Prediction], truths: Sequence[Truth]) -> list[tuple[Callable, Callable]]:
    """How both may be named: by a field of the same name, by one that the truths lack, by image and question."""
    mine, theirs = (list(side[0].ids) if side else [] for side in (predictions, truths))
    # Of a name that both have, only the same name counts: ids of questions may happen to be those of images.
    names = [(a, a) for a in mine if a in theirs] + [(a, b) for a in mine if a not in theirs for b in theirs]
    functions: list[tuple[Callable, Callable]] = [
        (lambda one, a=a: one.ids.get(a), lambda one, b=b: one.ids.get(b)) for a, b in names
    ]
    for a in mine:
        # LLaVA's TextVQA answers bear the image's id; the prompt's first line is the question.
        functions.append(
            (
                lambda one, a=a: _asked(one.ids.get(a), one.prompt),
                lambda one: _asked(one.ids.get("image_id"), one.question),
            )
        )
    return functions


def _asked(image: str | None, question: str | None) -> tuple[str, str] | None:
    return None if image is None or question is None else (image, question.partition("\n")[0].strip().lower())


def _by_order(predictions: Sequence[Prediction], truths: Sequence[Truth]) -> Pairs | None:
    """The first with the first and so on, within each category where both know theirs."""
    categories: list[dict[Any, list[int]]] = []
    for values in ([one.category for one in predictions], [one.meta.get("category") for one in truths]):
        groups: dict[Any, list[int]] = {}
        for place, value in enumerate(values):
            groups.setdefault(value, []).append(place)
        categories.append(groups)
    if categories[0].keys() != categories[1].keys():
        categories = [{None: list(range(len(predictions)))}, {None: list(range(len(truths)))}]
    pairs: Pairs = []
    for name, mine in categories[0].items():
        theirs = categories[1][name]
        if len(mine) != len(theirs):
            told = f" of category {name!r}" if name else ""
            hint = "--questions FILE --select category=… chooses a subset"
            raise DataError(f"{len(mine)} predictions but {len(theirs)} annotations{told}: joined by order; {hint}")
        pairs += [(predictions[a], b) for a, b in zip(mine, theirs, strict=True)]
    return pairs


def _check_question(prediction: Prediction, truth: Truth) -> None:
    """DataError if the prompt does not hold the question: equal ids or counts do not make equal samples."""
    if prediction.prompt is None or truth.question is None:
        return
    asked, prompt = (" ".join(re.findall(r"\w+", text.lower())) for text in (truth.question, prediction.prompt))
    if asked not in prompt:
        name = next(iter(prediction.ids.items()), ("answer", prediction.text))
        raise DataError(
            f"{name[0]} {name[1]!r}: the prompt {prediction.prompt!r:.80} does not ask the annotation's question "
            f"{truth.question!r:.80}; are the two files of the same subset?"
        )


def _mismatch(predictions: Sequence[Prediction], truths: Sequence[Truth]) -> str:
    """One sentence about the fields with the largest overlap."""
    best, told = -1, "the predictions bear no ids and the annotations do"
    for a in predictions[0].ids if predictions else ():
        for b in truths[0].ids:
            mine, theirs = (
                Counter(one.ids.get(name) for one in side) for name, side in ((a, predictions), (b, truths))
            )
            shared = len(mine.keys() & theirs.keys()) + (a == b) / 2
            if shared > best:
                best, told = shared, _faults(mine, theirs, a, b)
    hint = "--questions FILE and --select field=value choose a subset, --allow-partial scores 'k of N'"
    return f"{len(predictions)} predictions do not match {len(truths)} annotations: {told}; {hint}"


def _faults(mine: Counter, theirs: Counter, a: str, b: str) -> str:
    faults = {
        f"predicted more than once ({a})": [key for key, count in mine.items() if count > 1],
        f"annotated more than once ({b})": [key for key, count in theirs.items() if count > 1],
        "without prediction": [key for key in theirs if key not in mine],
        "unknown": [key for key in mine if key not in theirs],
    }
    return ", ".join(f"{len(found)} {fault}: {first(found)}" for fault, found in faults.items() if found) or "no ids"


def _record(prediction: Prediction, place: int, truth: Truth) -> Record:
    category = {} if prediction.category is None else {"category": prediction.category}
    prompt = {} if prediction.prompt is None else {"prompt": prediction.prompt}
    if prediction.record is not None:
        old = prediction.record
        return replace(old, index=place, truth={**old.truth, **truth.truth}, meta={**old.meta, **truth.meta})
    name = next(iter(truth.ids.values()), str(place))
    return Record(place, name, prediction.text, truth=truth.truth, meta={**category, **prompt, **truth.meta})


def _is(value: Any, wanted: str) -> bool:
    return wanted in map(str, value) if isinstance(value, (list, tuple)) else str(value) == wanted


def _some(kept: Any, name: str, value: str, values: Sequence[Any]) -> None:
    if not kept:
        flat = {str(one) for many in values for one in (many if isinstance(many, list) else [many]) if one is not None}
        raise ConfigError(f"--select {name}={value}: no question or annotation has it; {choices(value, flat)}")


def _ids(truths: Sequence[Truth]) -> set[tuple[str, str]]:
    return {pair for one in truths for pair in one.ids.items()}
