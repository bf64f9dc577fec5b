"""Data sets of the drawn world about single objects: expression to box, box to expression, expression to point.

Nothing is downloaded; every item is a function of (world_seed, split, epoch, index) alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mllm.dataset.drawn_expressions import Expression, choose_expressions, make_scene
from mllm.dataset.drawn_world import Scene
from mllm.dataset.questions import QuestionTemplates
from mllm.errors import ConfigError
from mllm.registry import DATASETS
from mllm.structures import BOXES_PLACEHOLDER, IMAGE_PLACEHOLDER, POINTS_PLACEHOLDER, Box, Point


@dataclass
class Exchange:
    """A question and its answer; one list of boxes (points) for each ``<boxes>`` (``<points>``) in their text."""

    question: str
    answer: str
    question_boxes: list[list[Box]] = field(default_factory=list)
    answer_boxes: list[list[Box]] = field(default_factory=list)
    answer_points: list[list[Point]] = field(default_factory=list)
    truth: dict[str, Any] = field(default_factory=dict)
    category: str = ""


class DrawnDataset:
    """What the drawn data sets share; a subclass says what is asked and answered about a scene.

    Args:
        count: number of pictures.
        split: any text; two splits never share a picture.
        world_seed: another seed is another world.
        questions: name of a template set, path of a JSON file, one sentence, or a list of sentences.
        turns: how many questions one conversation asks about its picture; of a template set those are then used that
            begin with the picture.
    """

    placeholders: ClassVar[tuple[str, ...]] = (IMAGE_PLACEHOLDER,)
    template_set: ClassVar[str | Sequence[str]]
    objects: tuple[int, int] | None = None
    distinct: bool = False

    def __init__(
        self,
        count: int,
        split: str = "train",
        world_seed: int = 0,
        questions: str | Sequence[str] | None = None,
        turns: int = 1,
    ) -> None:
        if count < 1 or turns < 1:
            raise ConfigError(f"{type(self).__name__}: count={count!r}, turns={turns!r}; both must be at least 1")
        self.count, self.split, self.world_seed, self.turns = count, split, world_seed, turns
        self.templates = QuestionTemplates(questions or self.template_set, self.placeholders)
        if turns > 1:
            self.templates = self.templates.starting_with(IMAGE_PLACEHOLDER)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.item(index)

    def item(self, index: int, epoch: int = 0) -> dict[str, Any]:
        """The item; another epoch asks otherwise about the same picture."""
        scene, exchanges = self._talk(index, epoch)
        last = exchanges[-1]
        truth = {"boxes": [list(box) for boxes in last.answer_boxes for box in boxes], **last.truth}
        meta = {"source": type(self).__name__, "image_id": scene.key}
        return {
            "image": scene.draw(),
            **_conversation(exchanges),
            "truth": truth,
            "meta": {**meta, "category": last.category} if last.category else meta,
        }

    def length_hint(self, index: int) -> tuple[int, int]:
        """Characters of the conversation and number of images; nothing is drawn."""
        turns = _conversation(self._talk(index, 0)[1])["conversations"]
        return sum(len(turn["value"]) for turn in turns), 1

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """``self.turns`` questions about the scene with their answers."""
        raise NotImplementedError

    def ask(self, rng: random.Random, **values: str) -> str:
        """A question with its placeholders but ``<image>`` filled."""
        return self.templates.fill(self.templates.choose(rng), **values)

    def _talk(self, index: int, epoch: int) -> tuple[Scene, list[Exchange]]:
        if not 0 <= index < self.count:
            raise IndexError(f"{type(self).__name__}: index {index} of {self.count}")
        scene = make_scene(self.world_seed, self.split, index, self.objects, self.distinct)
        return scene, self.exchanges(scene, random.Random(f"{type(self).__name__}/{scene.key}/{epoch}"))


def _conversation(exchanges: Iterable[Exchange]) -> dict[str, Any]:
    """Target and turns of an item; the first question alone shows the picture."""
    boxes: list[Box] = []
    points: list[Point] = []
    turns: list[dict[str, Any]] = []
    for number, exchange in enumerate(exchanges):
        question = exchange.question if number == 0 else exchange.question.removeprefix(IMAGE_PLACEHOLDER).lstrip()
        asked = {"boxes_seq": _enlist(boxes, exchange.question_boxes), "points_seq": None}
        answered = {
            "boxes_seq": _enlist(boxes, exchange.answer_boxes),
            "points_seq": _enlist(points, exchange.answer_points),
        }
        turns += [{"from": "human", "value": question, **asked}, {"from": "gpt", "value": exchange.answer, **answered}]
    target = {"boxes": [list(box) for box in boxes], "points": [list(point) for point in points]}
    return {"target": target, "conversations": turns}


def _enlist(known: list, groups: list[list]) -> list[list[int]] | None:
    """Indices of the groups' members in ``known``, which grows by those that are new."""
    for member in (member for group in groups for member in group):
        if member not in known:
            known.append(member)
    return [[known.index(member) for member in group] for group in groups] or None


class DrawnByExpression(DrawnDataset):
    """What asks by referring expressions.

    Args:
        relational_share: how many of them need a relation to another object, 0 to 1.
        answer: what is answered; may repeat the ``<expr>``.
    """

    placeholders = ("<expr>", IMAGE_PLACEHOLDER)
    answer_placeholder = BOXES_PLACEHOLDER

    def __init__(
        self,
        count: int,
        split: str = "train",
        world_seed: int = 0,
        questions: str | Sequence[str] | None = None,
        turns: int = 1,
        relational_share: float = 0.5,
        answer: str | None = None,
    ) -> None:
        super().__init__(count, split, world_seed, questions, turns)
        self.answer = self.answer_placeholder if answer is None else answer
        if self.answer.count(self.answer_placeholder) != 1:
            raise ConfigError(
                f"{type(self).__name__}: answer={answer!r}; expected {self.answer_placeholder} to stand once in it"
            )
        if not 0 <= relational_share <= 1:
            raise ConfigError(f"{type(self).__name__}: relational_share={relational_share!r}; expected 0 to 1")
        self.relational_share = relational_share

    def expressions(self, scene: Scene, rng: random.Random) -> list[Expression]:
        """An expression for each turn."""
        return choose_expressions(scene, rng, self.turns, self.relational_share)


@DATASETS.register_module()
class DrawnREC(DrawnByExpression):
    """Referring expression in, box out. ``wrong_expression`` asks for another object while the truth stays."""

    template_set = "rec"

    def __init__(
        self,
        count: int,
        split: str = "train",
        world_seed: int = 0,
        questions: str | Sequence[str] | None = None,
        turns: int = 1,
        relational_share: float = 0.5,
        answer: str | None = None,
        wrong_expression: bool = False,
    ) -> None:
        super().__init__(count, split, world_seed, questions, turns, relational_share, answer)
        self.wrong_expression = wrong_expression

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """Expressions with the boxes of their referents."""
        return [self._exchange(scene, expression, rng) for expression in self.expressions(scene, rng)]

    def _exchange(self, scene: Scene, expression: Expression, rng: random.Random) -> Exchange:
        box = scene.shapes[expression.referent].box
        others = [list(shape.box) for index, shape in enumerate(scene.shapes) if index != expression.referent]
        words = str(_expression_for_another(scene, expression, rng) if self.wrong_expression else expression)
        return Exchange(
            self.ask(rng, expr=words),
            self.templates.fill(self.answer, expr=words),
            answer_boxes=[[box]],
            truth={"expression": words, "other_boxes": others},
            category=expression.category,
        )


def _expression_for_another(scene: Scene, expression: Expression, rng: random.Random) -> Expression:
    while True:
        other = choose_expressions(scene, rng, 1)[0]
        if other.referent != expression.referent:
            return other


@DATASETS.register_module()
class DrawnREG(DrawnDataset):
    """Box in, an expression that only its object fits out."""

    placeholders = ("<objs>", IMAGE_PLACEHOLDER)
    template_set = "reg"

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """Boxes with expressions for what they hold."""
        return [self._exchange(scene, expression, rng) for expression in choose_expressions(scene, rng, self.turns)]

    def _exchange(self, scene: Scene, expression: Expression, rng: random.Random) -> Exchange:
        return Exchange(
            self.ask(rng, objs=BOXES_PLACEHOLDER),
            str(expression),
            question_boxes=[[scene.shapes[expression.referent].box]],
            truth={"references": [str(expression)]},
            category=expression.category,
        )


@DATASETS.register_module()
class DrawnPointing(DrawnByExpression):
    """Referring expression in, the middle of its object out."""

    template_set = "pointing"
    answer_placeholder = POINTS_PLACEHOLDER

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """Expressions with the centres of their referents; the truth holds point and box."""
        return [self._exchange(scene, expression, rng) for expression in self.expressions(scene, rng)]

    def _exchange(self, scene: Scene, expression: Expression, rng: random.Random) -> Exchange:
        shape = scene.shapes[expression.referent]
        return Exchange(
            self.ask(rng, expr=str(expression)),
            self.templates.fill(self.answer, expr=str(expression)),
            answer_points=[[shape.center]],
            truth={"boxes": [list(shape.box)], "points": [list(shape.center)], "expression": str(expression)},
            category=expression.category,
        )


@DATASETS.register_module()
class DrawnOthers(DrawnByExpression):
    """Referring expression in, the boxes of all other objects out, left to right in one pair of brackets."""

    template_set = (
        "<image> Give the box of each object but <expr>.",
        "<image> Box everything except <expr>.",
        "<image> Find the boxes of all that is not <expr>.",
    )

    def exchanges(self, scene: Scene, rng: random.Random) -> list[Exchange]:
        """Expressions with the boxes of what they do not mean."""
        return [self._exchange(scene, expression, rng) for expression in self.expressions(scene, rng)]

    def _exchange(self, scene: Scene, expression: Expression, rng: random.Random) -> Exchange:
        boxes = [shape.box for index, shape in enumerate(scene.shapes) if index != expression.referent]
        question, answer = (self.templates.fill(text, expr=str(expression)) for text in (self.ask(rng), self.answer))
        return Exchange(question, answer, answer_boxes=[boxes], category=expression.category)
