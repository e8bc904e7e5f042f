"""How many channels of each group stay, and which: until a budget is met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal

import torch
from torch import Tensor

from planish.analysis import Cost
from planish.analysis.dependency import Dependencies, Dim, Group, labels_of
from planish.errors import OptionError

Measure = Literal["units", "macs", "parameters"]


@dataclass(frozen=True)
class Budget:
    """What must become smaller, and by how much.

    Attributes:
        found: The dependencies of the graph.
        cost: Of the graph.
        of: What is counted: units in the groups, multiply-accumulates, or parameters.
        amount: The share of it that goes.
    """

    found: Dependencies
    cost: Cost
    of: Measure
    amount: float

    def left(self, keep: Mapping[Dim, Tensor], groups: Sequence[Group]) -> float:
        """The share that is left."""
        if self.of == "parameters":
            return self.found.parameters(keep) / max(self.found.parameters({}), 1)
        if self.of == "macs":
            shares = self.found.shares(keep)
            macs = sum(node.work.macs * shares.get(node.node, 1.0) for node in self.cost.nodes)
            return macs / max(self.cost.total.macs, 1)
        total = sum(group.size for group in groups)
        return sum(len(keep[group.dim]) if group.dim in keep else group.size for group in groups) / total


def choose(
    budget: Budget, groups: Sequence[Group], scores: Mapping[Dim, Tensor], across: bool, round_to: int
) -> dict[Dim, Tensor]:
    """The indices that stay of each group that loses some.

    Args:
        budget: When enough has gone.
        groups: Those that may lose units.
        scores: How much each unit of each group matters, `(size,)`.
        across: Rank units of all groups by what they matter for what they save; else every group loses the same share.
        round_to: Axes are left with a multiple of this many numbers.

    Raises:
        OptionError: Nothing can go, or not enough; says how much can.
    """
    ranks = {group.dim: scores[group.dim].argsort() for group in groups}  # what matters least comes first
    keys = {group.dim: _key(budget, group, scores[group.dim], groups, across) for group in groups}
    steps = {group.dim: step_of(budget.found, group, round_to) for group in groups}
    order = torch.cat([keys[group.dim].sort().values for group in groups]).sort().values

    def after(count: int) -> dict[Dim, Tensor]:
        """What stays when about `count` units have gone."""
        border = float(order[count - 1]) if count else -torch.inf
        keep: dict[Dim, Tensor] = {}
        for group in groups:
            step, most = steps[group.dim], group.size
            kept = int((keys[group.dim] > border).sum())
            kept = min(max(-(-kept // step) * step, step), most)
            if kept < most:
                keep[group.dim] = ranks[group.dim][most - kept :].sort().values
        return keep

    wanted = 1 - budget.amount + 1e-9
    if budget.of == "units":
        count = int(len(order) * budget.amount + 1e-9)
    else:
        count = _first(len(order), lambda count: budget.left(after(count), groups) <= wanted)
    keep = after(count)
    if not keep:
        raise OptionError(
            f"no group can lose {budget.amount:g} of its units and keep a multiple of {round_to}",
            "amount, round_to",
            "round_to=1",
        )
    if budget.of != "units" and (left := budget.left(keep, groups)) > wanted:
        raise OptionError(
            f"only {1 - left:.0%} of the {budget.of} can go with the chosen units, not {budget.amount:.0%}",
            "amount",
            "more units, or a smaller amount",
        )
    return keep


def step_of(found: Dependencies, group: Group, round_to: int) -> int:
    """The least number of units that go together, so that axes keep multiples of `round_to`."""
    axes = [found.tensors[p.tensor][p.axis] for p in group.places if p.tensor in found.graph.parameter_names]
    width = min(int((labels_of(axis, group.dim) == 0).sum()) for axis in axes)
    return round_to // gcd(round_to, width)


def _key(budget: Budget, group: Group, scores: Tensor, groups: Sequence[Group], across: bool) -> Tensor:
    """In this order units go: ascending."""
    size = group.size
    if not across:
        places = torch.empty(size, dtype=torch.float64)
        places[scores.argsort()] = (torch.arange(size, dtype=torch.float64) + 1) / size
        return places
    saved = 1 - budget.left({group.dim: torch.arange(size - 1)}, groups)
    return scores.double() / max(saved, 1e-12)


def _first(most: int, holds: Callable[[int], bool]) -> int:
    """The least number for which something holds that holds for all above it; `most` if for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
