"""Data sets of the drawn world about whole pictures: captions, detection, questions, and conversations of all kinds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from mllm.dataset.drawn import DrawnDataset, Exchange
from mllm.dataset.drawn_expressions import Phrase, unique_phrases
from mllm.dataset.drawn_world import COLORS, KINDS, RELATIONS, Scene, Shape, clear_distance
from mllm.errors import ConfigError
from mllm.registry import DATASETS
from mllm.structures import BOXES_PLACEHOLDER, IMAGE_PLACEHOLDER


def _listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


@DATASETS.register_module()
class DrawnCaption(DrawnDataset):
    """A sentence that names every object, left to right."""

    template_set = "caption"

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """The caption, as often as there are turns."""
        caption = _listed([f"a {shape.name}" for shape in scene.shapes]) + "."
        return [Exchange(self.ask(rng), caption, truth={"references": [caption]}) for _ in range(self.turns)]


@DATASETS.register_module()
class DrawnGroundedCaption(DrawnDataset):
    """A sentence that names every object, left to right, each with its box.

    Args:
        objects: least and greatest number of objects, for other pictures than the world's with four to six.
        distinct: with ``objects`` (at most five): no two of them share a colour or a shape.
        shuffled: name the objects in any order, so that a box must be found by its words, not by its place in the row.
        short_names: share of the objects that are named by words that fit them alone instead of by all three.
    """

    template_set = "flickr30k"

    def __init__(
        self,
        count: int,
        split: str = "train",
        world_seed: int = 0,
        questions: str | Sequence[str] | None = None,
        turns: int = 1,
        objects: Sequence[int] | None = None,
        distinct: bool = False,
        shuffled: bool = False,
        short_names: float = 0.0,
    ) -> None:
        super().__init__(count, split, world_seed, questions, turns)
        if distinct and (objects is None or max(objects) > len(KINDS)):
            raise ConfigError(f"DrawnGroundedCaption: distinct needs objects of at most {len(KINDS)}, got {objects!r}")
        self.objects = (int(objects[0]), int(objects[1])) if objects is not None else None
        self.distinct, self.shuffled, self.short_names = distinct, shuffled, short_names

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """The caption, as often as there are turns."""
        return [self._exchange(scene, rng) for _ in range(self.turns)]

    def _exchange(self, scene: Scene, rng: random.Random) -> Exchange:
        order = list(range(len(scene.shapes)))
        if self.shuffled:
            rng.shuffle(order)
        alone = unique_phrases(scene) if self.short_names else {}
        names = [
            str(rng.choice(alone[index])) if index in alone and rng.random() < self.short_names else shape.name
            for index, shape in ((index, scene.shapes[index]) for index in order)
        ]
        caption = _listed([f"a {name} {BOXES_PLACEHOLDER}" for name in names]) + "."
        return Exchange(self.ask(rng), caption, answer_boxes=[[scene.shapes[index].box] for index in order])


@DATASETS.register_module()
class DrawnRegionCaption(DrawnDataset):
    """Boxes of several objects in, a sentence that names them in that order out."""

    placeholders = ("<objs>", IMAGE_PLACEHOLDER)
    template_set = "grounded_caption"

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """Two or three regions a question."""
        return [self._exchange(rng.sample(scene.shapes, rng.randint(2, 3)), rng) for _ in range(self.turns)]

    def _exchange(self, shapes: list[Shape], rng: random.Random) -> Exchange:
        caption = _listed([f"a {shape.name}" for shape in shapes]) + "."
        question = self.ask(rng, objs=" ".join(BOXES_PLACEHOLDER for _ in shapes))
        return Exchange(question, caption, [[shape.box] for shape in shapes], truth={"references": [caption]})


@DATASETS.register_module()
class DrawnDetection(DrawnDataset):
    """The name of a colour or a shape in, the boxes of all its objects out, left to right in one pair of brackets."""

    placeholders = ("<category>", IMAGE_PLACEHOLDER)
    template_set = "detection"

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """Colours and shapes that the scene has."""
        present = sorted({Phrase(None, s.color, None) for s in scene.shapes}, key=str)
        present += sorted({Phrase(None, None, s.kind) for s in scene.shapes}, key=str)
        return [self._exchange(scene, rng.choice(present), rng) for _ in range(self.turns)]

    def _exchange(self, scene: Scene, phrase: Phrase, rng: random.Random) -> Exchange:
        boxes = [shape.box for shape in scene.shapes if phrase.matches(shape)]
        return Exchange(self.ask(rng, category=str(phrase)), BOXES_PLACEHOLDER, answer_boxes=[boxes])


@DATASETS.register_module()
class DrawnVQA(DrawnDataset):
    """Short questions about colours, shapes, numbers, presence and relations; answers of one word."""

    placeholders = ("<question>", IMAGE_PLACEHOLDER)
    template_set = "vqa"

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """Questions of all kinds, mixed."""
        return [self._exchange(scene, rng) for _ in range(self.turns)]

    def _exchange(self, scene: Scene, rng: random.Random) -> Exchange:
        category = rng.choice(sorted(_QUESTIONS))
        question, answer = _QUESTIONS[category](scene, rng)
        truth = {"question": question, "answer": answer, "references": [answer]}
        return Exchange(self.ask(rng, question=question), answer, truth=truth, category=category)


def _attribute_question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """About the color or the kind of an object that has a name without it; else a question of number."""
    named = ((index, phrase) for index, phrases in unique_phrases(scene).items() for phrase in phrases)
    options = [(index, phrase) for index, phrase in named if None in (phrase.color, phrase.kind)]
    if not options:
        return _count_question(scene, rng)
    index, phrase = rng.choice(options)
    if phrase.color is None:
        return f"What color is the {phrase}?", scene.shapes[index].color
    return f"What kind of shape is the {phrase}?", scene.shapes[index].kind


def _count_question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    shape = rng.choice(scene.shapes)
    phrase = rng.choice((Phrase(None, shape.color, None), Phrase(None, None, shape.kind)))
    return f"How many {phrase}s are there?".replace("crosss", "crosses"), str(
        sum(phrase.matches(other) for other in scene.shapes)
    )


def _presence_question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    shape = rng.choice(scene.shapes)
    phrase = Phrase(None, shape.color, shape.kind)
    if rng.random() < 0.5:
        absent = [Phrase(None, c, k) for c in COLORS for k in KINDS if (c == shape.color) != (k == shape.kind)]
        phrase = rng.choice(absent)
    present = any(phrase.matches(other) for other in scene.shapes)
    return f"Is there a {phrase}?", "yes" if present else "no"


def _relation_question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """About two objects that have names of their own and lie clearly apart; else a question of presence."""
    names = unique_phrases(scene)
    relation = rng.choice(RELATIONS)
    pairs = [
        (i, j)
        for i in names
        for j in names
        if i != j and abs(scene.displacement(relation, i, j)) >= clear_distance(scene)
    ]
    if not pairs:
        return _presence_question(scene, rng)
    i, j = rng.choice(pairs)
    question = f"Is the {rng.choice(names[i])} {relation} the {rng.choice(names[j])}?"
    return question, "yes" if scene.related(relation, i, j) else "no"


_QUESTIONS = {
    "attribute": _attribute_question,
    "count": _count_question,
    "presence": _presence_question,
    "relation": _relation_question,
}


@DATASETS.register_module()
class DrawnConversation(DrawnDataset):
    """Several tasks about one picture in one conversation, shuffled.

    Args:
        tasks: configs of drawn data sets without count, split and world_seed; each adds its own ``turns``.
        keep: how many of the turns to keep, None for all.
    """

    def __init__(
        self,
        count: int,
        tasks: Sequence[Mapping[str, Any]],
        split: str = "train",
        world_seed: int = 0,
        keep: int | None = None,
    ) -> None:
        if not tasks:
            raise ConfigError("DrawnConversation: 'tasks' is empty, expected configs such as dict(type='DrawnREG')")
        self.count, self.split, self.world_seed, self.keep = count, split, world_seed, keep
        self.tasks = [DATASETS.build(task, count=count, split=split, world_seed=world_seed) for task in tasks]
        for task in self.tasks:
            task.templates = task.templates.starting_with(IMAGE_PLACEHOLDER)

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """All tasks' questions in a new order."""
        exchanges = [exchange for task in self.tasks for exchange in task.exchanges(scene, rng)]
        rng.shuffle(exchanges)
        return exchanges[: self.keep]
