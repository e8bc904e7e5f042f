"""`Recipe`: passes in order, as a value, a file and a command.

    recipe = Recipe(Smooth(), Quantize(weights=int8, activations=uint8))
    print(recipe.plan(graph))
    small = recipe(graph, data=calibration)

In a file each pass is one table, with its registered name and the options that differ from their defaults:

    [[step]]
    pass = "quantize"
    weights = "int8"

Reading a file imports registered passes only; nothing in it is executed.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from planish import config
from planish.analysis import analyze, weights
from planish.errors import OptionError, PlanishError, UnknownName
from planish.graph import Data, Graph, Pass, Progress, parse_selector, path
from planish.holes import Hole, PerNode, Template, inside, label
from planish.recipe.passes import name_of
from planish.recipe.plan import Plan
from planish.recipe.text import Reader, Writer
from planish.targets import Target


class Kept(Protocol):
    """The graphs after each pass of a recipe, as far as it was applied before; a pass is known by its place, from 0."""

    def has(self, place: int) -> bool:
        """Whether there is a graph after this pass and all before it."""
        ...

    def load(self, place: int) -> Graph:
        """That graph."""
        ...

    def save(self, place: int, graph: Graph) -> None:
        """Keep it."""
        ...


class Recipe:
    """An ordered list of passes, with what they are for.

    Args:
        *steps: The passes, first one first; None is no step. Some may have holes (`planish.holes`), which a search
            fills. A pass with a `PerNode` becomes one pass for each value in it.
        target: What the result is built for, where nothing else is said.
        arguments: What the function that makes the model is called with.
        name: What reports call it.
        about: What it does, and what it was measured to reach, in a sentence or two.

    Raises:
        OptionError: There is nothing in it, or something else than passes.
    """

    def __init__(
        self,
        *steps: Pass | Template | Hole | None,
        target: Target | Template | None = None,
        arguments: Mapping[str, Any] | None = None,
        name: str = "",
        about: str = "",
    ) -> None:
        for place, step in enumerate(steps, 1):
            if not (step is None or isinstance(step, Pass | Hole) or _makes_pass(step)):
                shown = step.__name__ if isinstance(step, type) else type(step).__name__
                hint = f"{shown}(...)" if isinstance(step, type) else "Quantize(weights='int8')"
                raise OptionError(f"a step of a recipe is a pass, not {shown}", f"step {place}", hint)
        if not (steps or target or arguments):
            raise OptionError("a recipe has one pass or more", "Recipe()", "Recipe(Quantize(weights='int8'))")
        self.steps: tuple[Any, ...] = tuple(one for step in steps if step is not None for one in per_value(step))
        self.target, self.arguments = target, dict(arguments or {})
        self.name, self.about = name, about

    def __call__(
        self,
        graph: Graph,
        data: Data | None = None,
        progress: Progress | None = None,
        kept: Kept | None = None,
        training: Data | None = None,
    ) -> Graph:
        """Apply the passes in order; `graph` is not changed.

        Args:
            graph: The graph to start from.
            data: Calibration data, re-iterable `(args, kwargs)`.
            progress: Called with (done, total, what); a pass counts 1,000, whatever its own steps.
            kept: Graphs of an earlier application: this one goes on after the last of them.
            training: Data for the passes that learn, `(args, kwargs)` without labels; by default the calibration data.

        Raises:
            PlanishError: As the pass raised it, with the step it was in.
        """
        self._check_whole()
        known = [place for place in range(len(self.steps)) if kept and kept.has(place)]
        origin = graph.origin or graph
        graph = kept.load(known[-1]) if kept and known else graph
        graph = graph.replace(origin=origin)
        for place, step in list(enumerate(self.steps))[known[-1] + 1 if known else 0 :]:
            with _Step(place, step):
                given = training if step.learns and training is not None else data
                graph = step(graph, given, progress and _share(progress, place, len(self.steps), step))
            if kept:
                kept.save(place, graph)
        if progress:
            progress(1000 * len(self.steps), 1000 * len(self.steps), "")
        return graph

    @property
    def learns(self) -> bool:
        """Whether a pass of it trains."""
        return any(step.learns for step in self.steps)

    @property
    def is_open(self) -> bool:
        """Whether it has holes."""
        return any(True for _ in inside([self.steps, self.target, self.arguments]))

    def _check_whole(self) -> None:
        if self.is_open:
            hole = next(iter(inside([self.steps, self.target, self.arguments])))
            raise OptionError("the recipe has holes", str(hole.name or hole), "planish.search(recipe, graph, ...)")

    def plan(self, graph: Graph) -> Plan:
        """What each pass would touch after those before it, `graph` itself being left alone.

        Raises:
            OptionError: A pass would touch nothing, or cannot follow the ones before it; names the step.
        """
        self._check_whole()
        planned, now = [], graph
        for place, step in enumerate(self.steps):
            with _Step(place, step):
                planned.append((name_of(step), tuple(step.plan(now))))
                now = step.draft(now)
        return Plan(tuple(planned), tuple(weights(now)), _cost(graph), _cost(now))

    def to_data(self) -> dict[str, Any]:
        """The recipe as plain data."""
        writer = Writer([self.steps, self.target, self.arguments])
        data: dict[str, Any] = self._head()
        if self.arguments:
            data["arguments"] = writer.arguments(self.arguments)
        if self.target is not None:
            data["target"] = writer.target(self.target)
        return {**data, "step": list(map(writer.step, self.steps))}

    def _head(self) -> dict[str, Any]:
        return {key: text for key, text in (("name", self.name), ("about", self.about)) if text}

    @classmethod
    def from_data(cls, data: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """The inverse of `to_data`.

        Raises:
            OptionError: Names the step and the option that cannot be read.
        """
        unknown = data.keys() - {"name", "about", "step", "target", "arguments"}
        tables = data.get("step", [] if data.keys() & {"target", "arguments"} else None)
        if unknown or not isinstance(tables, list) or not all(_is_table(table) for table in tables):
            what = f"unknown table {sorted(unknown)[0]!r}" if unknown else "a recipe is a list of [[step]] tables"
            raise OptionError(what, where, '[[step]]\npass = "quantize"')
        head = {key: data.get(key, "") for key in ("name", "about")}
        for key, text in head.items():
            if not isinstance(text, str):
                raise OptionError(f"a recipe's {key} is a text, not {text!r}", where)
        reader = Reader(where)
        arguments = reader.arguments(data.get("arguments", {}))
        steps = [reader.step(table, f"step {place}") for place, table in enumerate(tables, 1)]
        target = reader.target(data["target"]) if "target" in data else None
        return cls(*(steps or [None]), target=target, arguments=arguments, **head)

    def to_toml(self) -> str:
        """The recipe as TOML, one `[[step]]` a pass."""
        data = self.to_data()
        steps = data.pop("step")
        head = tomli_w.dumps(data)
        if any(not _is_flat(table) for table in steps):
            return (head + "\n" if head else "") + tomli_w.dumps({"step": steps})
        return "\n".join(filter(None, [head, *(f"[[step]]\n{tomli_w.dumps(table)}" for table in steps)]))

    def to_json(self) -> str:
        """The recipe as JSON."""
        return json.dumps(self.to_data(), indent=2)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe: JSON if the name ends in `.json`, else TOML."""
        text = self.to_json() if Path(path).suffix == ".json" else self.to_toml()
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OptionError(f"cannot write the recipe: {error.strerror}", str(path)) from error

    @classmethod
    def ready(cls, name: str) -> Recipe:
        """A recipe that comes with Planish (`planish recipes` lists them).

        Raises:
            UnknownName: There is none of that name.
        """
        known = ready()
        if name not in known:
            raise UnknownName("recipe", name, known)
        return cls.load(known[name])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read what `save` wrote.

        Raises:
            OptionError: The file cannot be read; says where in it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            data = json.loads(text) if Path(path).suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise OptionError(f"cannot read the recipe: {error.strerror}", str(path)) from error
        except (ValueError, RecursionError) as error:
            raise OptionError(f"the recipe cannot be read: {error}", str(path)) from error
        if not isinstance(data, Mapping):
            raise OptionError("a recipe is a table with a list of steps", str(path))
        return cls.from_data(data, str(path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash((self.steps, self.target, self.name, self.about))

    def __repr__(self) -> str:
        parts = [*map(repr, self.steps)]
        parts += [f"target={self.target!r}"] if self.target is not None else []
        parts += [f"arguments={self.arguments!r}"] if self.arguments else []
        return f"Recipe({', '.join(parts)})"

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self.steps, self.target, self.arguments, self._head()


def per_value(step: Any) -> list[Any]:
    """A step as plain passes: one for each value that a `PerNode` in it gives to nodes, applied to those nodes.

    Raises:
        OptionError: The pass does not say where it works.
    """
    spread = (
        {}
        if not isinstance(step, Template)
        else {name: value for name, value in step.fields.items() if isinstance(value, PerNode)}
    )
    if not spread or any(True for _ in inside(step)):
        return [step]
    kind = step.kind
    if "where" not in kind.__dataclass_fields__:
        raise OptionError(f"{kind.__name__} has no `where`, so no value for each node", next(iter(spread)), "choose")
    shared = {name: value for name, value in step.fields.items() if name not in spread}
    groups: dict[tuple[Any, ...], tuple[dict[str, Any], list[str]]] = {}
    for node in dict.fromkeys(node for values in spread.values() for node in values):
        given = {name: values[node] for name, values in spread.items() if values.get(node) is not None}
        groups.setdefault(tuple((name, label(value)) for name, value in given.items()), (given, []))[1].append(node)
    everywhere = parse_selector(shared.pop("where", kind.__dataclass_fields__["where"].default))
    return [
        step.make(**shared, **given, where=everywhere & reduce(or_, map(path, nodes)))
        for given, nodes in groups.values()
        if given
    ]


def _makes_pass(step: object) -> bool:
    return isinstance(step, Template) and issubclass(step.kind, Pass)


def _is_table(table: object) -> bool:
    return isinstance(table, Mapping) or table == config.NONE


def _is_flat(table: object) -> bool:
    return isinstance(table, Mapping) and not any(isinstance(value, Mapping) for value in table.values())


def _cost(graph: Graph) -> tuple[int, int]:
    return sum(weight.nbytes for weight in weights(graph)), round(analyze(graph).total.macs)


def ready() -> dict[str, Path]:
    """Files of the recipes that come with Planish, by name."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "ready").glob("*.toml"))}


class _Place:
    """Adds where we are to an error that passes through."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, PlanishError):
            error.where = ", ".join(filter(None, [self.where, error.where]))
            PlanishError.__init__(error, error.what, error.where, error.hint)


class _Step(_Place):
    def __init__(self, place: int, step: Pass) -> None:
        super().__init__(f"step {place + 1} ({name_of(step)})")


def _share(progress: Progress, place: int, count: int, step: Pass) -> Progress:
    def inner(done: int, total: int, what: str) -> None:
        progress(1000 * place + 1000 * done // max(total, 1), 1000 * count, f"{name_of(step)} {what}".strip())

    inner(0, 1, "")
    return inner
