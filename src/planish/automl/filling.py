"""One walk over a recipe with holes, asking what stands in each: how a point becomes a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from planish.automl.decision import Decision, Point, point_id
from planish.errors import OptionError, PlanishError
from planish.graph import Graph
from planish.holes import Ask, Between, Choose, Each, Hole, Label, PerNode, Template, answering, fill, label
from planish.recipe import Recipe, name_of
from planish.recipe.recipe import per_value

Answer = Callable[[Decision], Label]
Model = Callable[..., Graph]
GRAPHS = 16
"""Models that are remembered, of those that a factory made."""


@dataclass(frozen=True)
class Filled:
    """What a point stands for.

    Attributes:
        point: The decisions that were made.
        recipe: Without holes.
        graph: Of the model that the point makes; the space's own where the model has no holes.
        made_by: The answers that made it.
    """

    point: Point
    recipe: Recipe
    graph: Graph
    made_by: tuple[Hashable, ...] = ()

    @property
    def id(self) -> str:
        """A short name of the point, equal wherever the decisions are."""
        return point_id(self.point)


@dataclass
class Memory:
    """What does not change from point to point.

    Attributes:
        sites: The nodes that an `each` decides about, by its place and the steps before it.
        graphs: For the answers that a model was given: what it asked next, or what it became.
    """

    sites: dict[Any, list[str]] = field(default_factory=dict)
    graphs: dict[tuple[Hashable, ...], Hole | Graph] = field(default_factory=dict)


class Filling:
    """A walk.

    Args:
        recipe: With holes.
        graph: The model; None where `model` makes it.
        model: Makes a captured graph.
        answer: Is asked for each decision that is made.
        memory: Of earlier walks.

    Attributes:
        point: What was answered.
        found: The decisions that were met, made or not, with the hole of each.
    """

    def __init__(
        self, recipe: Recipe, graph: Graph | None, model: Model | None, answer: Answer, memory: Memory
    ) -> None:
        self.recipe, self.graph, self.model, self.answer, self.memory = recipe, graph, model, answer, memory
        self.point: Point = {}
        self.found: dict[str, tuple[Decision, Hole]] = {}
        self._names: dict[int, str] = {}
        self._within: list[tuple[str, tuple[Label, ...]]] = []
        self._steps: list[Any] = []
        self._alone: slice | None = None
        self._template: Template | None = None
        self._trace: tuple[Hashable, ...] = ()
        self._asked: list[str] = []

    def filled(self) -> Filled:
        """Everything without holes.

        Raises:
            OptionError: What was answered does not fit; as the pass or the target says it.
        """
        recipe = self.recipe
        arguments = {name: fill(value, self._ask, name) for name, value in recipe.arguments.items()}
        if self.model is not None:
            self.graph = self._modeled(self.model, arguments)
        assert self.graph is not None
        taken: dict[str, int] = {}
        for step in recipe.steps:
            name = (step.name or "step") if isinstance(step, Hole) else name_of(step)
            taken[name] = taken.get(name, 0) + 1
            before, begin = bool(self.found), len(self._steps)
            made = fill(step, self._ask, name if taken[name] == 1 else f"{name} {taken[name]}", self._enter)
            self._steps += [] if made is None else per_value(made)
            holes = {id(hole): hole for _, hole in self.found.values()}
            if not before and len(holes) == 1 and not any(isinstance(hole, Between) for hole in holes.values()):
                self._alone = slice(begin, len(self._steps))
        target = fill(recipe.target, self._ask, "target")
        told = arguments | {name: self.point[name] for name in self._asked if name in self.point}
        whole = Recipe(*(self._steps or [None]), target=target, arguments=told, name=recipe.name, about=recipe.about)
        return Filled(self.point, whole, self.graph, self._trace)

    def check(self) -> None:
        """Plan the first step with a hole, if it is a choice and nothing else has a say in it: a refusal now stands.

        Raises:
            OptionError: As the pass says it.
        """
        graph = self.graph
        if self._alone is None or graph is None:
            return
        for step in self._steps[: self._alone.start]:
            graph = step.draft(graph)
        for step in self._steps[self._alone]:
            step.plan(graph)
            graph = step.draft(graph)

    def _enter(self, template: Template) -> None:
        self._template = template

    def _ask(self, hole: Hole, place: str) -> Any:
        if not isinstance(hole, Each):
            return self._answered(hole, hole.name or self._names.get(id(hole), place))
        base = hole.name or self._names.get(id(hole), place)
        return PerNode({path: self._answered(hole, f"{base}[{path}]") for path in self._sites(base)})

    def _answered(self, hole: Hole, name: str) -> Any:
        """What a hole is filled with, holes in it filled as well."""
        self._names.setdefault(id(hole), name.partition("[")[0] if isinstance(hole, Each) else name)
        decision = self._decision(hole, name)
        known, _ = self.found.setdefault(name, (decision, hole))
        if (known.options, str(known.between)) != (decision.options, str(decision.between)):
            raise OptionError(f"two decisions are called {name!r} and have different options", name, "name=")
        if name not in self.point and decision.made(self.point):
            self.point[name] = decision.check(self.answer(decision))
        if isinstance(hole, Between):
            return self.point.get(name, hole.low)
        assert isinstance(hole, Choose)
        taken = self.point.get(name, hole.labels[0])
        self._within.append((name, (taken,)))
        try:
            return fill(hole.option(taken), self._ask, name, self._enter)
        finally:
            self._within.pop()

    def _decision(self, hole: Hole, name: str) -> Decision:
        when = list(self._within)
        if hole.when is not None:
            when.append((self._known(hole.when.hole, name), hole.when.labels))
        if isinstance(hole, Between):
            return Decision(name, (), hole, tuple(when))
        assert isinstance(hole, Choose)
        return Decision(name, hole.labels, None, tuple(when))

    def _known(self, hole: Hole, asker: str) -> str:
        """The name of the decision that a condition is about; it is made now if it stands later."""
        name = hole.name or self._names.get(id(hole), "")
        if not name:
            raise OptionError("a condition is about a hole that stands later and has no name", asker, "name=")
        if name not in self.found:
            within, self._within = self._within, []
            self._answered(hole, name)
            self._within = within
        return name

    def _sites(self, place: str) -> list[str]:
        """The nodes that the pass around an `each` would touch."""
        assert self.graph is not None
        key = (place, id(self.graph) if self.model else 0, tuple(self._steps))
        if key not in self.memory.sites:
            graph = self.graph
            for step in self._steps:
                graph = step.draft(graph)
            assert self._template is not None, "an each stands in a pass"
            first = fill(self._template, lambda hole, _: _first(hole))
            self.memory.sites[key] = list(dict.fromkeys(step.path or step.node for step in first.plan(graph)))
        return self.memory.sites[key]

    def _modeled(self, model: Model, arguments: Mapping[str, Any]) -> Graph:
        """The model that the answers make; what the same answers made before is not made again."""
        trace: list[Hashable] = [str(arguments)]
        known = self.memory.graphs.get(tuple(trace))
        while isinstance(known, Hole):
            self._asked.append(known.name)
            trace.append(label(self._answered(known, known.name)))
            known = self.memory.graphs.get(tuple(trace))
        if isinstance(known, Graph):
            self._trace = tuple(trace)
            return known

        asked: dict[str, Hole] = {}

        def ask(hole: Hole, name: str) -> Any:
            asked.setdefault(name, hole)
            return self._answered(hole, name)

        with answering(ask), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # equal answers make equal models
            is_asked = list(inspect.signature(model).parameters) == ["trial"]
            graph = model(_Trial(ask)) if is_asked else model(**arguments)
        trace, self._asked = trace[:1], list(asked)
        for name, hole in asked.items():
            self.memory.graphs[tuple(trace)] = hole
            trace.append(label(self._answered(hole, name)))
        self._forget()
        self._trace = tuple(trace)
        self.memory.graphs[self._trace] = graph
        return graph

    def _forget(self) -> None:
        """Make room for one more model."""
        made = [trace for trace, known in self.memory.graphs.items() if isinstance(known, Graph)]
        for trace in made[: max(len(made) - GRAPHS + 1, 0)]:
            del self.memory.graphs[trace]


def _first(hole: Hole) -> Any:
    """What may stand in a hole, to see what its pass would touch."""
    if isinstance(hole, Between):
        return hole.low
    assert isinstance(hole, Choose)
    return next((option for option in hole.options if option is not None), None)


class _Trial:
    """What a function in Optuna's style may ask."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._ask(Choose(name, None, tuple(choices)), name)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._ask(Between(name, None, low, high, None if step == 1 else step, log), name)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._ask(Between(name, None, float(low), float(high), step, log), name)


def discover(walk: Callable[[Answer], Filling]) -> list[Decision]:
    """All decisions, those within options after the one that leads to them. Each option is filled in once.

    Args:
        walk: Begins a walk that asks a function.

    Raises:
        OptionError: An option is refused by what it was meant for, or leads nowhere.
    """
    found: dict[str, Decision] = {}
    tried: set[tuple[int | str, Label]] = set()
    waiting: list[tuple[dict[str, Label], str]] = [({}, "")]
    while waiting:
        told, latest = waiting.pop(0)
        walked = walk(lambda decision, told=told: told.get(decision.name, decision.first))  # type: ignore[misc]
        try:
            walked.filled()
            walked.check()
        except PlanishError as error:
            given = f"{latest} = {told[latest]}" if latest else ""
            raise OptionError(error.what, ", ".join(filter(None, [given, error.where])), error.hint) from error
        before = None
        for name, (decision, hole) in walked.found.items():
            if latest and not decision.when and (name not in found or latest in dict(found[name].when)):
                decision = _after_answer(found.pop(name, decision), latest, told[latest])  # the code of a model asked
            if name not in found:
                found = _inserted(found, before, name, decision)
            before = name
            if name not in walked.point or not decision.options:
                continue
            for answer in decision.options[1:]:
                known = id(hole) if isinstance(hole, Each) else name  # all nodes of an `each` at once
                if (known, answer) not in tried:
                    tried.add((known, answer))
                    alike = [other for other, (_, same) in walked.found.items() if same is hole]
                    waiting.append(({**told, **dict.fromkeys(alike, answer)}, name))
    return list(found.values())


def _after_answer(decision: Decision, name: str, answer: Label) -> Decision:
    """The decision as one that also this answer leads to."""
    labels = next((labels for other, labels in decision.when if other == name), ())
    return replace(decision, when=((name, tuple(dict.fromkeys((*labels, answer)))),))


def _inserted(found: dict[str, Decision], before: str | None, name: str, decision: Decision) -> dict[str, Decision]:
    items = list(found.items())
    place = list(found).index(before) + 1 if before else len(items)
    return dict([*items[:place], (name, decision), *items[place:]])
