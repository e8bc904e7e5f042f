"""Chooses how much of each operation is done in a cycle, so that all keep pace with one another and fit the device.

A pipeline is as fast as its slowest block. For a pace, in cycles a sample, each operation has a cheapest fold that
keeps it; a faster pace costs more. So the fastest pace that fits is found by bisection over the paces that there are.
What is cheapest depends on what is scarce: resources have prices, which rise for those that a design has too much of.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from planish.errors import OptionError, UserError
from planish.targets.fpga.blocks.base import Fold, Instance
from planish.targets.fpga.netlist import Chosen, block_of
from planish.targets.fpga.operations.layout import Reshape
from planish.targets.fpga.program import Operation, Program
from planish.targets.fpga.utilization import Utilization, total

Budget = Mapping[str, int]
"""How much there is of "lut" (LUT4-equivalents), "ff", "dsp" and "bram"."""
Cost = Callable[[Instance], Utilization]

_ROUNDS = 12  # changes of prices that are tried for a pace
_NAMES = {"lut": "LUT4-equivalents", "ff": "flip-flops", "dsp": "DSP blocks", "bram": "block RAMs"}


@dataclass(frozen=True)
class Choice:
    """One way to fold an operation.

    Attributes:
        fold: How.
        interval: Cycles a sample.
        cost: What it takes.
    """

    fold: Fold
    interval: int
    cost: Utilization


@dataclass(frozen=True)
class Folding:
    """A fold for each operation.

    Attributes:
        choices: By the name of the value that the operation makes.
    """

    choices: Mapping[str, Choice]

    @property
    def folds(self) -> dict[str, Fold]:
        """What `netlist.connect` takes."""
        return {name: choice.fold for name, choice in self.choices.items()}

    @property
    def interval(self) -> int:
        """Cycles from one sample to the next."""
        return max((choice.interval for choice in self.choices.values()), default=1)

    @cached_property
    def cost(self) -> Utilization:
        """Of all blocks, without what connects them."""
        return total(choice.cost for choice in self.choices.values())

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
    search = _Search({each.output.name: choices(program, each, cost, chosen) for each in _folded(program)}, budget)
    if interval is not None:
        found = search.at(interval)
        if found.interval > interval:
            slow = max(found.choices, key=lambda name: found.choices[name].interval)
            where = next(each.where for each in program.operations if each.output.name == slow)
            raise OptionError(
                f"a sample takes {found.interval} cycles at least, not {interval}", where, "a lower throughput"
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
        found.append(Choice(fold, instance.interval, cost(instance)))
        other = replace(fold, dsp=not fold.dsp)
        if found[-1].cost.dsp:
            instance = block.instance(operation, inputs, other)
            found.append(Choice(other, instance.interval, cost(instance)))
    return found


def _folded(program: Program) -> list[Operation]:
    return [each for each in program.operations if not isinstance(each, Reshape)]


@dataclass(frozen=True)
class _Search:
    options: Mapping[str, Sequence[Choice]]
    budget: Budget

    @cached_property
    def paces(self) -> list[int]:
        """Paces at which something changes, from the fastest that all reach."""
        fastest = max((min(c.interval for c in each) for each in self.options.values()), default=1)
        every = {choice.interval for each in self.options.values() for choice in each}
        return sorted(pace for pace in every | {fastest} if pace >= fastest)

    def fastest(self) -> Folding | None:
        """The fastest folding within the budget."""
        place = bisect_left(self.paces, True, key=lambda pace: not self.at(pace).excess(self.budget))
        return self.at(self.paces[place]) if place < len(self.paces) else None

    def at(self, pace: int) -> Folding:
        """The cheapest folding at a pace: within the budget if one is found, else the one nearest to it."""
        prices = {kind: 1 / max(limit, 1) for kind, limit in self.budget.items()} or {"lut": 1.0}
        best = None
        for _ in range(_ROUNDS):
            found = Folding({name: _cheapest(each, pace, prices) for name, each in self.options.items()})
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


def _cheapest(options: Sequence[Choice], pace: int, prices: Mapping[str, float]) -> Choice:
    """Of those that keep the pace; of none, the fastest."""
    able = [choice for choice in options if choice.interval <= pace]
    if not able:
        fastest = min(choice.interval for choice in options)
        able = [choice for choice in options if choice.interval == fastest]
    return min(able, key=lambda choice: sum(price * getattr(choice.cost, kind) for kind, price in prices.items()))


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


def rough(instance: Instance) -> Utilization:
    """A block's cost from its parameters alone, by a rule of thumb."""
    at = instance.parameters
    products = at.get("SIMD", 1) * at.get("PE", 1) if "PE" in at else 0
    bits = at.get("IN_WIDTH", at.get("A_WIDTH", 8)) * at.get("WEIGHT_WIDTH", at.get("B_WIDTH", 8))
    dsp = products if at.get("STYLE", at.get("DSP", 0)) == 1 else -(-products // 2) if at.get("STYLE") == 2 else 0
    stored = [(len(memory.words), memory.bits) for memory in instance.memories.values()]
    bram = sum(-(-depth * width // 18432) for depth, width in stored if depth * width > 2048)
    lut = sum(depth * width // 16 for depth, width in stored if depth * width <= 2048)
    lanes = sum(instance.lanes_in) + instance.lanes_out
    return Utilization(
        40 + lut + 20 * lanes + (0 if dsp else products * bits) + 12 * dsp, 0, 60 + 24 * lanes, dsp, bram
    )
