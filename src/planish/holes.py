"""Holes: places in a recipe, a target or a model that a search fills.

    Quantize(weights=each("int2", "int4", "int8"))          # one decision for each layer
    Prune(choose("2:4", "50%"))                             # one decision
    PruneStructured(between(0.1, 0.6, name="share"))        # a number
    choose(None, Factorize(rank=between(8, 64, step=8)))    # a step or none, and what it decides only if it is taken

A class that is `Fillable` takes a hole wherever it takes a value: instead of an instance comes a `Template`, which is
checked when it is filled. A hole that stands in two places, or has the name of another, is one decision.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from planish import config
from planish.errors import OptionError, UnknownName

Label = bool | int | float | str
"""What stands for an option in a point: the option itself if it is a number or a text, else its text."""


@dataclass(frozen=True, eq=False)
class Hole:
    """A value that is not decided yet.

    Attributes:
        name: What a point calls the decision; empty: after the place it stands at.
        when: The decision is made only if this holds.
    """

    name: str = ""
    when: Condition | None = None

    def among(self, *options: Any) -> Condition:
        """The condition that one of these options is taken: `choose(8, 16, when=kind.among("conv"))`."""
        labels = tuple(map(label, options))
        if isinstance(self, Choose) and (unknown := [each for each in labels if each not in self.labels]):
            raise UnknownName("option", str(unknown[0]), map(str, self.labels), self.name)
        return Condition(self, labels)

    def __bool__(self) -> bool:
        raise OptionError("a hole has no value yet", self.name or "choose(...)", "planish.search fills it")


@dataclass(frozen=True, eq=False)
class Choose(Hole):
    """One of several options; options may have holes of their own.

    Attributes:
        options: Two or more.
        labels: What a point calls them.
    """

    options: tuple[Any, ...] = ()
    labels: tuple[Label, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.options:
            raise OptionError("a choice needs options", self.name or "choose()", "choose('int4', 'int8')")
        labels = tuple(map(label, self.options))
        twice = [each for place, each in enumerate(labels) if _known(each, labels[:place])]
        if twice:
            raise OptionError(f"the option {twice[0]!r} is there twice", self.name or "choose(...)")
        object.__setattr__(self, "labels", labels)

    def option(self, of: Label) -> Any:
        """The option with that label.

        Raises:
            UnknownName: There is none.
        """
        for name, option in zip(self.labels, self.options, strict=True):
            if _known(of, (name,)):
                return option
        raise UnknownName("option", str(of), map(str, self.labels), self.name)

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()}({', '.join(map(str, self.labels))})"


@dataclass(frozen=True, eq=False)
class Each(Choose):
    """One of several options for each node that the pass takes."""


@dataclass(frozen=True, eq=False)
class Between(Hole):
    """A number in a range, its ends included.

    Attributes:
        low: The least.
        high: The most.
        step: Only every such number from `low` on; None for any, or any whole one if both ends are whole.
        log: Whether ratios matter rather than differences.
    """

    low: float = 0.0
    high: float = 1.0
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise OptionError(f"{self.low} is not below {self.high}", self.name or "between(...)", "between(1, 8)")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise OptionError(f"{self.step} is no step from {self.low} to {self.high}", self.name or "step")
        if self.log and (self.low <= 0 or self.step is not None):
            raise OptionError("a logarithmic range begins above 0 and has no step", self.name or "log")

    def __str__(self) -> str:
        step = f" by {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{step}{' (log)' if self.log else ''}"

    @property
    def whole(self) -> bool:
        """Whether it gives whole numbers only."""
        return all(type(each) is int for each in (self.low, self.high, 1 if self.step is None else self.step))

    @property
    def count(self) -> int | None:
        """How many numbers there are; None if too many to tell."""
        if self.step is None and not self.whole:
            return None
        return math.floor((self.high - self.low) / (self.step or 1) * (1 + 1e-12)) + 1


@dataclass(frozen=True)
class Condition:
    """That a hole is filled with one of some options."""

    hole: Hole
    labels: tuple[Label, ...]

    def holds(self, taken: Label | None) -> bool:
        """Whether it holds where the hole was filled with that (None: it was not)."""
        return taken is not None and _known(taken, self.labels)


class PerNode(Mapping[str, Any]):
    """A value for each module path: what `each` is filled with, `Quantize(weights=PerNode({"fc1": "int4"}))`.

    None leaves the node out.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        if not values:
            raise OptionError("no node is named", "PerNode({})", 'PerNode({"fc1": "int8"})')
        self._values = dict(values)

    def __getitem__(self, path: str) -> Any:
        return self._values[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(sorted((path, label(value)) for path, value in self._values.items())))

    def __repr__(self) -> str:
        return f"PerNode({self._values})"


@dataclass(frozen=True, eq=False)
class Template:
    """A call that waits for its holes to be filled.

    Attributes:
        kind: What is called.
        fields: Its arguments by name, holes among them.
        make: Makes an instance of the fields without holes; `kind` itself unless they were read from a file.
    """

    kind: type
    fields: Mapping[str, Any]
    make: Callable[..., Any]

    def __str__(self) -> str:
        return _call(self.kind, self.fields)

    __repr__ = __str__


class Fillable:
    """A class whose arguments may have holes: then a `Template` is made instead of an instance."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: D102  (the class says it)
        if not any(map(_is_open, (*args, *kwargs.values()))):
            return super().__new__(cls)
        bound = inspect.signature(cls).bind_partial(*args, **kwargs)
        return Template(cls, dict(bound.arguments), cls)


def choose(*options: Any, name: str = "", when: Condition | None = None) -> Any:
    """One decision between some options.

    In a model, while a search builds it, the option that was taken; elsewhere a hole.

    Args:
        *options: Values, or passes; None among steps of a recipe is no step.
        name: What a point calls the decision. One in a model needs a name.
        when: The decision is made only if this holds, `other.among("conv")`.
    """
    return _asked(Choose(name, when, options))


def each(*options: Any, name: str = "") -> Any:
    """One decision for each node that the pass takes.

    Args:
        *options: Values of the field; None leaves a node out.
        name: What a point calls the decisions, the node's path in brackets after it.
    """
    return Each(name, None, options)


def between(
    low: float,
    high: float,
    step: float | None = None,
    log: bool = False,
    name: str = "",
    when: Condition | None = None,
) -> Any:
    """A number from `low` to `high`: whole if both (and the step) are."""
    return _asked(Between(name, when, low, high, step, log))


Ask = Callable[[Hole, str], Any]
"""Called with a hole and the name of its place; says what is in it."""
_asking: ContextVar[Ask | None] = ContextVar("asking", default=None)


@contextmanager
def answering(ask: Ask | None) -> Iterator[None]:
    """Within, `choose` and `between` give what `ask` says: how holes in the code of a model are filled. With None they
    are holes, as outside of it."""
    token = _asking.set(ask)
    try:
        yield
    finally:
        _asking.reset(token)


def answered(hole: Hole, label: Label | None) -> Any:
    """What stands in a hole of a model: the option of that label, or the first one if there is none."""
    if isinstance(hole, Between):
        return hole.low if label is None else label
    assert isinstance(hole, Choose)
    return hole.options[0] if label is None else hole.option(label)


def _asked(hole: Hole) -> Any:
    ask = _asking.get()
    if ask is None:
        return hole
    if not hole.name:
        raise OptionError("a decision in a model needs a name", _text(hole), "choose('relu', 'gelu', name='act')")
    return fill(hole, ask, hole.name)


def inside(value: Any) -> Iterator[Hole]:
    """The holes in a value that are open whatever the others are filled with; not those within options."""
    if isinstance(value, Hole):
        yield value
    elif isinstance(value, Template):
        yield from inside(value.fields)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from inside(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from inside(item)


def fill(value: Any, ask: Ask, place: str = "", enter: Callable[[Template], None] | None = None) -> Any:
    """The value with what `ask` says in its holes; templates are made where nothing is left to fill.

    Args:
        value: A hole, a template, or a container of them; anything else is given back.
        ask: Is asked for each hole, in order; may answer with a value that has holes itself.
        place: Name of the place, for holes without one.
        enter: Told each template before its holes are asked for.
    """
    if isinstance(value, Hole):
        return fill(ask(value, place), ask, place, enter)
    if isinstance(value, Template):
        if enter:
            enter(value)
        within = f"{place}." if place else ""
        fields = {name: fill(item, ask, within + name, enter) for name, item in value.fields.items()}
        per_node = any(isinstance(item, PerNode) for item in fields.values())
        return Template(value.kind, fields, value.make) if per_node else value.make(**fields)
    if isinstance(value, PerNode):
        return PerNode({path: fill(item, ask, f"{place}[{path}]", enter) for path, item in value.items()})
    if isinstance(value, Mapping):
        return {name: fill(item, ask, f"{place}.{name}", enter) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(fill(item, ask, f"{place}[{index}]", enter) for index, item in enumerate(value))
    return value


def label(option: Any) -> Label:
    """What a point calls an option."""
    if option is None:
        return "none"
    return option if isinstance(option, bool | int | float | str) else _text(option)


def _text(value: Any) -> str:
    if isinstance(value, Template):
        return _call(value.kind, {name: item for name, item in value.fields.items() if not _is_open(item)})
    if dataclasses.is_dataclass(value) and type(value).__str__ is object.__str__ and not isinstance(value, type):
        return _call(type(value), config.encode(value))
    return str(value)


def _call(kind: type, fields: Mapping[str, Any]) -> str:
    return f"{kind.__name__}({', '.join(f'{name}={_text(value)}' for name, value in fields.items())})"


def _known(one: Label, labels: tuple[Label, ...]) -> bool:
    """Whether a label is among others; True is not 1."""
    return any(one == each and isinstance(one, bool) == isinstance(each, bool) for each in labels)


def _is_open(value: Any) -> bool:
    if isinstance(value, Hole | PerNode | Template):
        return True
    if isinstance(value, Mapping):
        return any(map(_is_open, value.values()))
    return isinstance(value, tuple | list) and any(map(_is_open, value))
