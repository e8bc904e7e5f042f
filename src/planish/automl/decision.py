"""Decisions, and points: what was decided."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from planish.errors import OptionError
from planish.holes import Between, Label

Point = dict[str, Label]


@dataclass(frozen=True)
class Decision:
    """One decision.

    Attributes:
        name: What a point calls it.
        options: The labels to choose from; empty for a number.
        between: The range of a number.
        when: `(name, labels)` of the decisions that must have been taken so for this one to be made; all of them.
    """

    name: str
    options: tuple[Label, ...] = ()
    between: Between | None = None
    when: tuple[tuple[str, tuple[Label, ...]], ...] = ()

    @property
    def count(self) -> int | None:
        """How many answers there are; None for a continuous number."""
        return len(self.options) if self.between is None else self.between.count

    @property
    def first(self) -> Label:
        """The answer that comes first."""
        return self.options[0] if self.between is None else self.between.low

    def made(self, point: Mapping[str, Label]) -> bool:
        """Whether the decision is made, given those before it."""
        return all(name in point and among(point[name], labels) for name, labels in self.when)

    def check(self, answer: Label) -> Label:
        """The answer, if it is one.

        Raises:
            OptionError: It is not; says what is.
        """
        if self.between is None:
            if among(answer, self.options):
                return answer
            known = ", ".join(map(str, self.options))
        else:
            low, high = self.between.low, self.between.high
            if isinstance(answer, int | float) and not isinstance(answer, bool) and low <= answer <= high:
                return answer
            known = f"{low:g} to {high:g}"
        raise OptionError(f"{answer!r} is no answer", self.name, f"known: {known}")

    def answers(self) -> list[Label]:
        """All answers.

        Raises:
            OptionError: They cannot be counted.
        """
        if self.between is None:
            return list(self.options)
        if self.count is None:
            raise OptionError("a range without a step has no list of answers", self.name, "between(..., step=0.1)")
        return [self.between.low + place * (self.between.step or 1) for place in range(self.count)]

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.options)) if self.between is None else str(self.between)
        when = " and ".join(f"{name} is {' or '.join(map(str, labels))}" for name, labels in self.when)
        return shown + (f"   if {when}" if when else "")


def point_id(point: Mapping[str, Label]) -> str:
    """A short name of a point, equal wherever its decisions are."""
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:10]


def count(decisions: Sequence[Decision], point: Mapping[str, Label]) -> int:
    """How many ways there are to make the decisions, given those of `point`; each can be counted."""
    if not decisions:
        return 1
    first, *rest = decisions
    if not first.made(point):
        return count(rest, point)
    asked = {name for decision in rest for name, _ in decision.when}
    if first.name not in asked:
        return (first.count or 1) * count(rest, point)
    return sum(count(rest, {**point, first.name: answer}) for answer in first.answers())


def points(decisions: Sequence[Decision], point: Point) -> Iterator[Point]:
    """All ways to make the decisions, added to those of `point`, in order."""
    if not decisions:
        yield point
        return
    first, *rest = decisions
    for answer in first.answers() if first.made(point) else [None]:
        yield from points(rest, point if answer is None else {**point, first.name: answer})


def at_random(decision: Decision, chance: random.Random) -> Label:
    """An answer, each as likely as the others."""
    between = decision.between
    if between is None:
        return chance.choice(decision.options)
    if between.log:
        value = between.low * (between.high / between.low) ** chance.random()
        return min(max(round(value), between.low), between.high) if between.whole else value
    return chance.uniform(between.low, between.high) if decision.count is None else chance.choice(decision.answers())


def among(label: Label, labels: Sequence[Label]) -> bool:
    """Whether a label is one of those; True is not 1."""
    return any(label == each and isinstance(label, bool) == isinstance(each, bool) for each in labels)
