"""A search space: a recipe with holes, a target and a model with theirs, as a list of decisions.

    space = Space(Recipe(Quantize(weights=each("int2", "int4", "int8"))), graph)
    print(space.describe())
    point = space.sample(seed=0)     # {"quantize.weights[fc1]": "int4", ...}
    recipe = space.fill(point)       # what a person could have written

A point is a JSON dict of the decisions that are made, by name. Those that are not (in options that are not taken, or
under a condition that does not hold) are not in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from planish.automl.decision import Decision, Point, at_random, count, points
from planish.automl.filling import Answer, Filled, Filling, Memory, discover
from planish.errors import OptionError
from planish.graph import Graph
from planish.holes import Label
from planish.recipe import Recipe

LISTED = 24


@dataclass
class Space:
    """All that a recipe with holes can become.

    Attributes:
        recipe: With holes, in its steps, its target or its arguments.
        graph: The model; may be left out where `model` makes it.
        model: A function that makes a captured graph: its parameters are the recipe's `arguments`, and `choose` and
            `between` in it are decisions. A function of one parameter `trial` may ask that, as in Optuna.
        decisions: In the order in which they are made.

    Raises:
        OptionError: There is no hole, an option that no pass accepts (all are tried), or a name for two decisions that
            differ.
    """

    recipe: Recipe
    graph: Graph | None = None
    model: Callable[..., Graph] | None = None
    decisions: tuple[Decision, ...] = field(init=False)
    _memory: Memory = field(default_factory=Memory, init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.graph is None) == (self.model is None):
            raise OptionError("a space has a graph, or a function that makes it", "graph, model")
        self.decisions = tuple(discover(self._filling))
        if not self.decisions:
            raise OptionError("there is nothing to decide: the recipe has no hole", "recipe", "choose('int4', 'int8')")

    @property
    def size(self) -> int | None:
        """How many points there are; None if a number in it is continuous."""
        if any(decision.count is None for decision in self.decisions):
            return None
        return count(self.decisions, {})

    def describe(self) -> str:
        """The decisions and their options, in a table."""
        size = self.size
        many = "infinitely many points" if size is None else f"{size:,} point{'s' * (size != 1)}"
        lines = [f"{len(self.decisions)} decision{'s' * (len(self.decisions) != 1)}, {many}"]
        shown = self.decisions[:LISTED]
        width = max(len(decision.name) for decision in shown)
        lines += [f"  {decision.name:{width}}  {decision}" for decision in shown]
        if len(self.decisions) > LISTED:
            lines.append(f"  … and {len(self.decisions) - LISTED} more")
        return "\n".join(lines)

    __str__ = describe

    def to_data(self) -> list[dict[str, Any]]:
        """The decisions as plain data: what two spaces are compared by."""
        return [{"name": decision.name, "answers": str(decision)} for decision in self.decisions]

    def sample(self, seed: int | None = None) -> Point:
        """A point at random, each answer as likely as the others."""
        chance = random.Random(seed)
        return self.made(lambda decision: at_random(decision, chance)).point

    def fill(self, point: Mapping[str, Label]) -> Recipe:
        """The recipe of a point, without holes.

        Raises:
            OptionError: A decision is missing, unknown, or its answer none; or a pass refuses what it was filled with.
        """
        known = {decision.name for decision in self.decisions}
        if self.model is None and (unknown := sorted(point.keys() - known)):
            raise OptionError(f"the space has no decision {unknown[0]!r}", "point", "print(space) lists all")

        def answer(decision: Decision) -> Label:
            if decision.name not in point:
                raise OptionError(f"the point does not decide {decision.name!r}", "point", f"{decision}")
            return decision.check(point[decision.name])

        return self.made(answer).recipe

    def made(self, answer: Answer) -> Filled:
        """What comes of answering each decision, in order, as it turns out to be made."""
        return self._filling(answer).filled()

    def points(self) -> Iterator[Point]:
        """All points, in order.

        Raises:
            OptionError: A number is continuous.
        """
        yield from points(self.decisions, {})

    def _filling(self, answer: Answer) -> Filling:
        return Filling(self.recipe, self.graph, self.model, answer, self._memory)
