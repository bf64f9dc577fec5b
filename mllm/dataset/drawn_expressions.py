"""Referring expressions of the drawn world: each names exactly one object, beside one that shares its colour or shape.

An attribute expression ("the small red circle") is unique by its words. A relational one ("the circle left of the red
square") needs its relation: without it, at least one more object fits. Object sets are bit masks over ``scene.shapes``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, product

from mllm.dataset.drawn_world import RELATIONS, Scene, Shape, clear_distance, random_scene

_PHRASE_FORMS = tuple(form for form in product((False, True), repeat=3) if form[1] or form[2])


@dataclass(frozen=True)
class Phrase:
    """A description by attributes; None leaves one open. At least colour or kind is given."""

    size: str | None
    color: str | None
    kind: str | None

    def matches(self, shape: Shape) -> bool:
        """Whether every attribute that is given is the shape's."""
        pairs = ((self.size, shape.size), (self.color, shape.color), (self.kind, shape.kind))
        return all(wanted is None or wanted == value for wanted, value in pairs)

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.color, self.kind or "shape") if word)


@dataclass(frozen=True)
class Expression:
    """A phrase, for a relational expression also a relation and the phrase of its anchor; ``referent`` is an index."""

    referent: int
    phrase: Phrase
    relation: str | None = None
    anchor: Phrase | None = None

    @property
    def category(self) -> str:
        """``relational`` or ``attribute``."""
        return "relational" if self.relation else "attribute"

    def __str__(self) -> str:
        return f"the {self.phrase}" + (f" {self.relation} the {self.anchor}" if self.relation else "")


def evaluate(expression: Expression, scene: Scene) -> list[int]:
    """All objects that satisfy the expression as it reads, whatever its ``referent`` says."""
    fitting = [i for i, shape in enumerate(scene.shapes) if expression.phrase.matches(shape)]
    if expression.relation is None or expression.anchor is None:
        return fitting
    anchors = [i for i, shape in enumerate(scene.shapes) if expression.anchor.matches(shape)]
    return [i for i in fitting if any(j != i and scene.related(expression.relation, i, j) for j in anchors)]


def shares_attribute(scene: Scene, index: int) -> bool:
    """Whether another object has the colour or the shape of ``shapes[index]``."""
    shape = scene.shapes[index]
    return any(i != index and (o.color == shape.color or o.kind == shape.kind) for i, o in enumerate(scene.shapes))


def phrases_by_object(scene: Scene, fits: Callable[[int, int], bool]) -> dict[int, list[Phrase]]:
    """For each object the phrases that describe it, where ``fits(number of objects described, index)``."""
    found: dict[int, list[Phrase]] = {}
    for index, shape in enumerate(scene.shapes):
        for size, color, kind in _PHRASE_FORMS:
            phrase = Phrase(shape.size if size else None, shape.color if color else None, shape.kind if kind else None)
            if fits(sum(phrase.matches(other) for other in scene.shapes), index):
                found.setdefault(index, []).append(phrase)
    return found


def unique_phrases(scene: Scene) -> dict[int, list[Phrase]]:
    """Phrases that describe one object alone, by object."""
    return phrases_by_object(scene, lambda fitting, index: fitting == 1)


@lru_cache(maxsize=64)
def attribute_expressions(scene: Scene) -> dict[int, list[Expression]]:
    """Attribute expressions by referent."""
    found = phrases_by_object(scene, lambda fitting, index: fitting == 1 and shares_attribute(scene, index))
    return {index: [Expression(index, phrase) for phrase in phrases] for index, phrases in found.items()}


@lru_cache(maxsize=64)
def relational_expressions(scene: Scene) -> dict[int, list[Expression]]:
    """Relational expressions by referent.

    Of the objects that the phrase fits, the referent alone stands in the relation; each of them, and no anchor is one
    of them, lies clearly to one side of the anchor, so that no answer hangs on a pixel.
    """
    anchors = unique_phrases(scene)
    ambiguous = phrases_by_object(scene, lambda fitting, index: fitting >= 2)
    clear = clear_distance(scene)
    found: dict[int, list[Expression]] = {}
    for referent, phrases in ambiguous.items():
        for phrase in phrases:
            group = [i for i, shape in enumerate(scene.shapes) if phrase.matches(shape)]
            for anchor, relation in product(anchors, RELATIONS):
                if anchor not in group and _singles_out(scene, relation, anchor, referent, group, clear):
                    found.setdefault(referent, []).extend(
                        Expression(referent, phrase, relation, words) for words in anchors[anchor]
                    )
    return found


def _singles_out(scene: Scene, relation: str, anchor: int, referent: int, group: list[int], clear: float) -> bool:
    for index in group:
        distance = scene.displacement(relation, index, anchor)
        if (distance if index == referent else -distance) < clear:
            return False
    return True


@lru_cache(maxsize=1024)
def make_scene(
    world_seed: int, split: str, index: int, objects: tuple[int, int] | None = None, distinct: bool = False
) -> Scene:
    """Scene number ``index`` of a split: the first of its random scenes that can be spoken of in both ways.

    Any text names a split; the seeds of two splits, and so their scenes, differ. With a number of ``objects`` of its
    own, the first scene is taken as it is; ``distinct`` is ``random_scene``'s.
    """
    key = f"{world_seed}/{split}/{index}"
    if objects is not None:
        return random_scene(key, random.Random(f"scene/{key}/0"), objects, distinct)
    for attempt in count():
        scene = random_scene(key, random.Random(f"scene/{key}/{attempt}"))
        if attribute_expressions(scene) and len(relational_expressions(scene)) >= 2:
            return scene
    raise AssertionError("unreachable")


def choose_expressions(
    scene: Scene, rng: random.Random, number: int, relational_share: float = 0.5
) -> list[Expression]:
    """``number`` expressions, each relational with ``relational_share``, drawn one by one without regard to the others.

    Were no object asked for twice, the last answers of a conversation could be found by what is left, without reading.
    """
    pools = {"attribute": attribute_expressions(scene), "relational": relational_expressions(scene)}
    chosen = []
    for _ in range(number):
        pool = pools["relational" if rng.random() < relational_share else "attribute"]
        chosen.append(rng.choice(pool[rng.choice(sorted(pool))]))
    return chosen
