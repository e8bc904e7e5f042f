"""Chooses how much of each operation is done in a cycle, so that all keep pace with one another and fit the device.

A pipeline is as fast as its slowest block. For a pace, in cycles a sample, each operation has a cheapest fold that
keeps it; a faster pace costs more. So the fastest pace that fits is found by bisection over the paces that there are.
What is cheapest depends on what is scarce: resources have prices, which rise for those that a design has too much of.
Between blocks whose lanes differ stand converters, which cost something and may be slow, so that folds are matched.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from planish.errors import OptionError, UserError
from planish.targets.fpga.blocks.base import Fold, Instance
from planish.targets.fpga.operations.layout import Reshape
from planish.targets.fpga.program import Operation, Program
from planish.targets.fpga.streamed.converters import joints
from planish.targets.fpga.streamed.matching import Between, Choice, Cost, Matching
from planish.targets.fpga.streamed.netlist import Chosen, block_of
from planish.targets.fpga.toolchain.utilization import Utilization, total

Budget = Mapping[str, int]
"""How much there is of "lut" (LUT4-equivalents), "ff", "dsp" and "bram"."""

_HARD = {"dsp": 0.25, "bram": 0.25}  # those that are left over are idle, while each LUT makes routing harder
_ROUNDS = 12  # changes of prices that are tried for a pace
_NAMES = {"lut": "LUT4-equivalents", "ff": "flip-flops", "dsp": "DSP blocks", "bram": "block RAMs"}


@dataclass(frozen=True)
class Folding:
    """A fold for each operation.

    Attributes:
        choices: By the name of the value that the operation makes.
        between: What stands where operations with other lanes meet.
    """

    choices: Mapping[str, Choice]
    between: Sequence[Between] = ()

    @property
    def folds(self) -> dict[str, Fold]:
        """What `netlist.connect` takes."""
        return {name: choice.fold for name, choice in self.choices.items()}

    @property
    def interval(self) -> int:
        """Cycles from one sample to the next."""
        return max((each.interval for each in (*self.choices.values(), *self.between)), default=1)

    @cached_property
    def cost(self) -> Utilization:
        """Of all blocks and of what converts between their lanes."""
        return total(each.cost for each in (*self.choices.values(), *self.between))

    def excess(self, budget: Budget) -> dict[str, float]:
        """By how much of the budget it is too large, for what it has too much of: 0.2 is 20 % more than there is."""
        found = {kind: getattr(self.cost, kind) / max(limit, 1) - 1 for kind, limit in budget.items()}
        return {kind: over for kind, over in found.items() if over > 0}


def choose(
    program: Program, budget: Budget, cost: Cost, interval: int | None = None, chosen: Chosen | None = None
) -> Folding:
    """The cheapest folding at a pace, or the fastest one that fits.

    Args:
        program: What is computed.
        budget: What there is to spend; a kind that is not named has no limit.
        cost: Of a block.
        interval: Most cycles a sample; None: the fastest pace that fits the budget.
        chosen: Blocks of the user's own.

    Raises:
        OptionError: The pace is asked for and no folding reaches it.
        UserError: It does not fit; says by how much, and what would fit.
    """
    options = {each.output.name: choices(program, each, cost, chosen) for each in _folded(program)}
    search = _Search(Matching(options, joints(program), cost), budget)
    if interval is not None:
        found = search.at(interval)
        if found.interval > interval:
            least = search.least()
            slow = max(least.choices, key=lambda name: least.choices[name].interval)
            where = next(each.where for each in program.operations if each.output.name == slow)
            raise OptionError(
                f"a sample takes {least.interval} cycles at least, not {interval}", where, "a lower throughput"
            )
        if over := found.excess(budget):
            best = search.fastest()
            hint = f"{best.interval} cycles a sample fit" if best else "a larger device, fewer bits, or a smaller model"
            raise UserError(_too_large(found, over, budget), "the FPGA target", hint)
        return found
    best = search.fastest()
    if best is None:
        smallest = search.at(search.paces[-1])
        raise UserError(
            _too_large(smallest, smallest.excess(budget), budget),
            _largest(program, smallest, budget),
            "a larger device, fewer bits, or a smaller model",
        )
    return best


def choices(program: Program, operation: Operation, cost: Cost, chosen: Chosen | None = None) -> list[Choice]:
    """Each way to fold an operation."""
    block, inputs = block_of(operation, chosen), tuple(program.values[name] for name in operation.inputs)
    found = []
    for fold in block.folds(operation, inputs):
        instance = block.instance(operation, inputs, fold)
        found.append(_choice(fold, instance, cost))
        if found[-1].cost.dsp:
            other = replace(fold, dsp=not fold.dsp)
            found.append(_choice(other, block.instance(operation, inputs, other), cost))
    return found


def _choice(fold: Fold, instance: Instance, cost: Cost) -> Choice:
    return Choice(fold, instance.interval, cost(instance), instance.lanes_in, instance.lanes_out)


def _folded(program: Program) -> list[Operation]:
    return [each for each in program.operations if not isinstance(each, Reshape)]


@dataclass(frozen=True)
class _Search:
    matching: Matching
    budget: Budget

    @cached_property
    def paces(self) -> list[int]:
        """Paces at which something changes, from the fastest that all blocks reach."""
        fastest = max((min(c.interval for c in each) for each in self.matching.options.values()), default=1)
        return sorted(pace for pace in self.matching.intervals | {fastest} if pace >= fastest)

    def fastest(self) -> Folding | None:
        """The fastest folding within the budget."""
        return self._first(lambda found: not found.excess(self.budget))

    def least(self) -> Folding:
        """The fastest folding, however large."""
        found = self._first(lambda _: True)
        assert found is not None
        return found

    def _first(self, fits: Callable[[Folding], bool]) -> Folding | None:
        def able(pace: int) -> bool:
            found = self.at(pace)
            return found.interval <= pace and fits(found)

        place = bisect_left(self.paces, True, key=able)
        return self.at(self.paces[place]) if place < len(self.paces) else None

    def at(self, pace: int) -> Folding:
        """The cheapest folding at a pace: within the budget if one is found, else the one nearest to it."""
        prices = {kind: _HARD.get(kind, 1.0) / max(limit, 1) for kind, limit in self.budget.items()} or {"lut": 1.0}
        best = None
        for _ in range(_ROUNDS):
            picked = self.matching.pick(pace, prices)
            found = Folding(picked, [self.matching.between(joint, picked) for joint in self.matching.joints])
            over = found.excess(self.budget)
            if best is None or _distance(over) < _distance(best.excess(self.budget)):
                best = found
            if not over:
                break
            prices = {kind: price * (1 + over.get(kind, 0.0)) ** 2 for kind, price in prices.items()}
        assert best is not None
        return best


def _distance(over: Mapping[str, float]) -> float:
    return sum(over.values())


def _too_large(folding: Folding, over: Mapping[str, float], budget: Budget) -> str:
    parts = [
        f"{getattr(folding.cost, kind):,} {_NAMES.get(kind, kind)} where there are {budget[kind]:,} ({share:+.0%})"
        for kind, share in over.items()
    ]
    return f"at {folding.interval} cycles a sample the design needs {', '.join(parts)}"


def _largest(program: Program, folding: Folding, budget: Budget) -> str:
    """The operation that takes the most of what there is too little of."""
    kind = max(folding.excess(budget), key=lambda kind: folding.excess(budget)[kind])
    name = max(folding.choices, key=lambda name: getattr(folding.choices[name].cost, kind))
    return next(each.where for each in program.operations if each.output.name == name)
