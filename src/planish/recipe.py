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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from planish import config
from planish.analysis import Weight, analyze, weights
from planish.errors import OptionError, PlanishError, UnknownName
from planish.graph import Data, Graph, Pass, Progress, Step
from planish.registry import Registry

passes = Registry(
    "pass",
    {
        "allocate": "planish.compress:Allocate",
        "cluster": "planish.compress:Cluster",
        "distill": "planish.training:Distill",
        "fold-batch-norm": "planish.rewrite:FoldBatchNorm",
        "fold-constants": "planish.rewrite:FoldConstants",
        "canonicalize": "planish.rewrite:Canonicalize",
        "gradual": "planish.training:Gradual",
        "early-exit": "planish.compress:EarlyExit",
        "merge-tokens": "planish.compress:MergeTokens",
        "prepare": "planish.targets.fpga.prepare:Prepare",
        "prune": "planish.compress:Prune",
        "prune-structured": "planish.compress:PruneStructured",
        "prune-tokens": "planish.compress:PruneTokens",
        "adapt": "planish.compress:Adapt",
        "correct": "planish.compress:Correct",
        "factorize": "planish.compress:Factorize",
        "merge": "planish.rewrite:Merge",
        "split-low-rank": "planish.rewrite:SplitLowRank",
        "quantize": "planish.compress:Quantize",
        "rotate": "planish.compress:Rotate",
        "smooth": "planish.compress:Smooth",
    },
)


@dataclass(frozen=True)
class Plan:
    """What each pass of a recipe would touch, and what the weights would be in the end; prints as tables.

    Attributes:
        steps: For each pass its name and its steps.
        weights: Each weight afterwards: format, zeros, rank, bytes.
        before: Bytes of all weights, and multiply-accumulates at the example's sizes, now.
        after: The same afterwards.
    """

    steps: tuple[tuple[str, tuple[Step, ...]], ...]
    weights: tuple[Weight, ...] = ()
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        lines = []
        for place, (name, steps) in enumerate(self.steps, 1):
            lines.append(f"{place}. {name}")
            rows = [(step.path or step.node, step.action, _sizes(step)) for step in steps]
            widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
            lines += [f"   {path:{widths[0]}}  {action:{widths[1]}}  {size}".rstrip() for path, action, size in rows]
        if self.weights:
            lines.append("afterwards")
            rows = [(weight.name, " × ".join(map(str, weight.shape)), str(weight)) for weight in self.weights]
            widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
            lines += [f"   {name:{widths[0]}}  {shape:{widths[1]}}  {what}" for name, shape, what in rows]
            (bytes_, macs), (fewer, left) = self.before, self.after
            lines.append(f"in total {bytes_:,} B -> {fewer:,} B of weights, {macs:,} -> {left:,} MACs")
        return "\n".join(lines)


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
    """An ordered list of passes.

    Args:
        *steps: The passes, first one first.
        name: What reports call it.
        about: What it does, and what it was measured to reach, in a sentence or two.

    Raises:
        OptionError: There is no pass, or something else among them.
    """

    def __init__(self, *steps: Pass, name: str = "", about: str = "") -> None:
        for place, step in enumerate(steps, 1):
            if not isinstance(step, Pass):
                shown = step.__name__ if isinstance(step, type) else type(step).__name__
                hint = f"{shown}(...)" if isinstance(step, type) else "Quantize(weights='int8')"
                raise OptionError(f"a step of a recipe is a pass, not {shown}", f"step {place}", hint)
        if not steps:
            raise OptionError("a recipe has one pass or more", "Recipe()", "Recipe(Quantize(weights='int8'))")
        self.steps, self.name, self.about = steps, name, about

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

    def plan(self, graph: Graph) -> Plan:
        """What each pass would touch after those before it, `graph` itself being left alone.

        Raises:
            OptionError: A pass would touch nothing, or cannot follow the ones before it; names the step.
        """
        planned, now = [], graph
        for place, step in enumerate(self.steps):
            with _Step(place, step):
                planned.append((name_of(step), tuple(step.plan(now))))
                now = step.draft(now)
        return Plan(tuple(planned), tuple(weights(now)), _cost(graph), _cost(now))

    def to_data(self) -> dict[str, Any]:
        """The recipe as plain data."""
        tables = [{"pass": registered_name(step), **config.encode(step)} for step in self.steps]
        return {**self._head(), "step": tables}

    def _head(self) -> dict[str, str]:
        return {key: text for key, text in (("name", self.name), ("about", self.about)) if text}

    @classmethod
    def from_data(cls, data: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """The inverse of `to_data`.

        Raises:
            OptionError: Names the step and the option that cannot be read.
        """
        unknown = data.keys() - {"name", "about", "step"}
        tables = data.get("step")
        if unknown or not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
            what = f"unknown table {sorted(unknown)[0]!r}" if unknown else "a recipe is a list of [[step]] tables"
            raise OptionError(what, where, '[[step]]\npass = "quantize"')
        head = {key: data.get(key, "") for key in ("name", "about")}
        for key, text in head.items():
            if not isinstance(text, str):
                raise OptionError(f"a recipe's {key} is a text, not {text!r}", where)
        return cls(*(_read_step(table, place, where) for place, table in enumerate(tables, 1)), **head)

    def to_toml(self) -> str:
        """The recipe as TOML, one `[[step]]` a pass."""
        data = self.to_data()
        if any(isinstance(value, Mapping) for table in data["step"] for value in table.values()):
            return tomli_w.dumps(data)
        head = tomli_w.dumps(self._head()) + "\n" if self._head() else ""
        return head + "\n".join(f"[[step]]\n{tomli_w.dumps(table)}" for table in data["step"])

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
        return isinstance(other, Recipe) and (self.steps, self._head()) == (other.steps, other._head())

    def __hash__(self) -> int:
        return hash((self.steps, self.name, self.about))

    def __repr__(self) -> str:
        return f"Recipe({', '.join(map(repr, self.steps))})"


def _cost(graph: Graph) -> tuple[int, int]:
    return sum(weight.nbytes for weight in weights(graph)), round(analyze(graph).total.macs)


def ready() -> dict[str, Path]:
    """Files of the recipes that come with Planish, by name."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "recipes").glob("*.toml"))}


def name_of(step: Pass) -> str:
    """The pass's registered name, or its class's."""
    owner = f"{type(step).__module__}:{type(step).__qualname__}"
    for name, target in passes.table.items():
        module, _, attribute = target.partition(":")
        if target == owner or (attribute == type(step).__qualname__ and owner.startswith(f"{module}.")):
            return name
    return type(step).__name__


def registered_name(step: Pass) -> str:
    """The name to write into a file.

    Raises:
        OptionError: Nobody registered the pass, so a file could not be read back.
    """
    name = name_of(step)
    if name not in passes:
        raise OptionError(
            f"the pass {name} is not registered, so it has no name in a file",
            "recipe",
            'entry point group "planish.pass"',
        )
    return name


def _read_step(table: Mapping[str, Any], place: int, where: str) -> Pass:
    options = dict(table)
    name = options.pop("pass", None)
    if not isinstance(name, str):
        raise OptionError("a step needs the name of its pass", f"{where}, step {place}", 'pass = "quantize"')
    if name not in passes:
        with _Place(f"{where}, step {place}"):
            return passes[name]
    return config.decode(passes[name], options, f"{where}, step {place} ({name})")


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


def _sizes(step: Step) -> str:
    return f"{step.bytes_before:,} B -> {step.bytes_after:,} B" if step.bytes_before else ""
