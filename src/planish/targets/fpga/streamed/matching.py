"""Picks a fold for each operation so that all blocks, and the converters between those whose lanes differ, cost least.

Along a tree of operations, each read by one other, the best choices are found exactly: for each choice of an operation,
the least that everything before it may cost. Where a value is read by several, the first reader counts, and then each
operation is looked at again with its neighbors as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.targets.fpga.blocks.base import Fold, Instance
from planish.targets.fpga.streamed.converters import Joint
from planish.targets.fpga.toolchain.utilization import Utilization, total

Cost = Callable[[Instance], Utilization]
Prices = Mapping[str, float]
"""Of one of each kind of resource."""
_KINDS = ("lut", "ff", "dsp", "bram")
_SLOW = 1e9  # what a converter costs that does not keep the pace, where all prices are 1: more than any device has
_SWEEPS = 4


@dataclass(frozen=True)
class Choice:
    """One way to fold an operation.

    Attributes:
        fold: How.
        interval: Cycles a sample.
        cost: What it takes.
        lanes_in: Numbers in a beat of each input.
        lanes_out: Numbers in a beat of the output.
    """

    fold: Fold
    interval: int
    cost: Utilization
    lanes_in: tuple[int, ...]
    lanes_out: int


@dataclass(frozen=True)
class Between:
    """What stands at a joint: cycles that a sample takes through it, and what it costs."""

    interval: int
    cost: Utilization


_NOTHING = Between(1, Utilization())


class Matching:
    """All choices, and what they need between them.

    Args:
        options: Of each operation, in the order of the program.
        joints: Where they meet.
        cost: Of a converter.
    """

    def __init__(self, options: Mapping[str, Sequence[Choice]], joints: Sequence[Joint], cost: Cost) -> None:
        self.options, self.joints, self._cost = options, joints, cost
        self._known: dict[object, Between] = {}
        self._links = [self._link(joint) for joint in joints]
        self._own = {name: _Amounts.of([choice.interval for choice in each], [choice.cost for choice in each], (-1,))
                     for name, each in options.items()}  # fmt: skip
        first: dict[str, int] = {}
        for place, joint in enumerate(joints):
            if joint.side is None:
                first.setdefault(joint.source, place)
        self._tree = set(first.values())
        self._into = {name: [place for place, joint in enumerate(joints) if joint.target == name] for name in options}
        self._from = {name: [place for place, joint in enumerate(joints) if joint.source == name] for name in options}

    @property
    def intervals(self) -> set[int]:
        """Those of all blocks and converters."""
        amounts = [*self._own.values(), *self._links]
        return {int(each) for found in amounts for each in np.unique(found.interval)}

    def between(self, joint: Joint, choices: Mapping[str, Choice]) -> Between:
        """What a joint needs between two choices."""
        source, target = choices[joint.source], choices[joint.target]
        return self._between(joint, _given(joint, source), target.lanes_in[joint.port])

    def pick(self, pace: int, prices: Prices) -> dict[str, Choice]:
        """The cheapest choices that keep a pace, or come nearest to it."""
        whole = sum(prices.values())
        prices = {kind: price / whole for kind, price in prices.items()}
        own = {name: np.where(self._able(name, pace), each.priced(prices), np.inf) for name, each in self._own.items()}
        links = [each.priced(prices) + _SLOW * np.where(each.interval > pace, each.interval, 0) for each in self._links]
        least: dict[str, np.ndarray] = {}
        best: dict[int, np.ndarray] = {}
        for name, costs in own.items():
            least[name] = costs.copy()
            for place in self._into[name]:
                if place in self._tree:
                    before = least[self.joints[place].source][:, None] + links[place]
                    best[place] = before.argmin(0)
                    least[name] += before.min(0)
        picked: dict[str, int] = {}
        for name in reversed(own):
            at = picked.setdefault(name, int(least[name].argmin()))
            for place in self._into[name]:
                if place in self._tree:
                    picked[self.joints[place].source] = int(best[place][at])
        self._settle(own, links, picked)
        return {name: self.options[name][at] for name, at in picked.items()}

    def _settle(self, own: Mapping[str, np.ndarray], links: Sequence[np.ndarray], picked: dict[str, int]) -> None:
        """Look at each operation again until nothing changes."""
        for _ in range(_SWEEPS if len(self._tree) < len(links) else 0):
            before = dict(picked)
            for name, costs in own.items():
                costs = costs.copy()
                for place in self._into[name]:
                    costs += links[place][picked[self.joints[place].source]]
                for place in self._from[name]:
                    costs += links[place][:, picked[self.joints[place].target]]
                picked[name] = int(costs.argmin())
            if picked == before:
                break

    def _able(self, name: str, pace: int) -> np.ndarray:
        """Which choices of an operation keep the pace; if none does, the fastest ones."""
        intervals = self._own[name].interval
        return intervals <= max(pace, intervals.min())

    def _link(self, joint: Joint) -> _Amounts:
        sources, targets = self.options[joint.source], self.options[joint.target]
        found = [
            self._between(joint, _given(joint, source), target.lanes_in[joint.port])
            for source in sources
            for target in targets
        ]
        shape = len(sources), len(targets)
        return _Amounts.of([each.interval for each in found], [each.cost for each in found], shape)

    def _between(self, joint: Joint, given: int, taken: int) -> Between:
        if given == taken and len(joint.values) == 1:
            return _NOTHING
        key = (given, taken, joint.burst, *((value.row, value.size, value.codes.bits) for value in joint.values))
        if key not in self._known:
            needed = joint.converters(given, taken)
            interval = joint.burst * max((each.interval for each in needed), default=1)
            self._known[key] = Between(interval, total(map(self._cost, needed)))
        return self._known[key]


def _given(joint: Joint, source: Choice) -> int:
    return source.lanes_out if joint.side is None else source.lanes_in[joint.side]


@dataclass(frozen=True)
class _Amounts:
    """Cycles and resources of choices, or of pairs of them."""

    interval: np.ndarray
    used: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, intervals: Sequence[int], costs: Sequence[Utilization], shape: tuple[int, ...]) -> _Amounts:
        used = {kind: np.array([getattr(each, kind) for each in costs], dtype=np.float64) for kind in _KINDS}
        return cls(np.array(intervals).reshape(shape), {kind: each.reshape(shape) for kind, each in used.items()})

    def priced(self, prices: Prices) -> np.ndarray:
        return sum((price * self.used[kind] for kind, price in prices.items()), np.zeros(self.interval.shape))
