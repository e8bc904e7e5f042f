"""Where the registers of a circuit go: as few as a clock allows.

A stage may be no longer than the clock's period by the delay model. How many stages that takes is found by putting each
node as early as it can be; the registers between two stages are then a smallest cut of the wires between what must be
before them and what must be after (Leiserson and Saxe, "Retiming synchronous circuitry", 1991, cut by cut).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from planish.errors import OptionError
from planish.targets.fpga.unrolled import delay
from planish.targets.fpga.unrolled.circuit import Circuit, Input

_MUCH = 2**24


@dataclass(frozen=True)
class Pipeline:
    """The stages of a circuit.

    Attributes:
        stages: How many. Registers stand before the first, between them, and after the last.
        stage: Of each node.
        period: The longest stage with its register, by the model (ns).
        registers: Bits.
    """

    stages: int
    stage: tuple[int, ...]
    period: float
    registers: int


def pipeline(circuit: Circuit, period: float) -> Pipeline:
    """Cut a circuit for a clock.

    Args:
        circuit: What is cut.
        period: Of the clock (ns).

    Raises:
        OptionError: A single node takes longer; tells the shortest period.
    """
    delays = [0.0 if isinstance(node, Input) else delay.through(node) for node in circuit.nodes]
    before = [sorted({bit.node for bit in node.reads if not bit.constant}) for node in circuit.nodes]
    after: list[list[int]] = [[] for _ in before]
    for node, found in enumerate(before):
        for each in found:
            after[each].append(node)
    budget = period - delay.REGISTER
    slowest = max(delays, default=0.0)
    if slowest > budget:
        where = circuit.nodes[delays.index(slowest)].layer
        shortest = slowest + delay.REGISTER
        raise OptionError(
            f"a clock of {1e3 / period:.0f} MHz is too fast: a single step takes {shortest:.1f} ns",
            where,
            f"at most {int(1e3 / shortest)} MHz",
        )
    early = _levels(before, delays, budget, [0] * len(before), range(len(before)))
    count = max(early, default=0) + 1
    late = [count - 1 - level for level in _levels(after, delays, budget, [0] * len(after), range(len(after))[::-1])]
    stage = [0] * len(before)
    inner = [node for node, each in enumerate(circuit.nodes) if not isinstance(each, Input)]  # inputs come in at once
    for cut in range(1, count):
        early = _levels(before, delays, budget, stage, range(len(before)), cut - 1)
        free = [node for node in inner if stage[node] == cut - 1 and early[node] == cut - 1 < late[node]]
        later = [stage[node] == cut - 1 and early[node] >= cut for node in range(len(stage))]
        for node in _behind(circuit, before, set(free), later):
            stage[node] = cut
        for node, beyond in enumerate(later):
            if beyond:
                stage[node] = cut
    longest = _longest(before, delays, stage) + delay.REGISTER
    return Pipeline(count, tuple(stage), longest, registers(circuit, stage, count))


def registers(circuit: Circuit, stage: Sequence[int], stages: int) -> int:
    """Bits of all registers."""
    last = [*stage, stages]
    total = sum(node.width for node in circuit.nodes if isinstance(node, Input))
    for (node, _), readers in circuit.readers.items():
        total += max(last[reader] for reader in readers) - stage[node]
    return total


def _levels(
    before: Sequence[Sequence[int]],
    delays: Sequence[float],
    budget: float,
    least: Sequence[int],
    order: Sequence[int],
    base: int = 0,
) -> list[int]:
    """The stage of each node if it is put as near to the beginning as the budget allows, but not before its least."""
    level, time = [0] * len(delays), [0.0] * len(delays)
    for node in order:
        own, begin = max(least[node], 0), 0.0
        for each in before[node]:
            if level[each] > own:
                own, begin = level[each], time[each]
            elif level[each] == own:
                begin = max(begin, time[each])
        if own < base:
            begin = 0.0
        elif begin + delays[node] > budget:
            own, begin = own + 1, 0.0
        level[node], time[node] = own, begin + delays[node]
    return level


def _longest(before: Sequence[Sequence[int]], delays: Sequence[float], stage: Sequence[int]) -> float:
    time = [0.0] * len(delays)
    for node, found in enumerate(before):
        time[node] = delays[node] + max((time[each] for each in found if stage[each] == stage[node]), default=0.0)
    return max(time, default=0.0)


def _behind(circuit: Circuit, before: Sequence[Sequence[int]], free: set[int], later: Sequence[bool]) -> list[int]:
    """Which of the free nodes go behind the smallest cut between what is before and what is later."""
    wires: dict[tuple[int, tuple[int, ...]], int] = {}
    behind = len(later)  # the outside is later than anything
    for (node, _), readers in circuit.readers.items():
        if node < behind and not later[node]:
            found = tuple(sorted({reader for reader in readers if reader == behind or later[reader] or reader in free}))
            if found:
                wires[node, found] = wires.get((node, found), 0) + 1
    index = {node: place for place, node in enumerate(sorted(free), 2)}
    ends: list[tuple[int, int, int]] = []
    size = len(index) + 2
    for (node, readers), bits in wires.items():
        ends.append((index.get(node, 0), size, bits))
        ends += [(size, index.get(reader, 1), _MUCH) for reader in readers]
        size += 1
    for node in free:
        ends += [(index[node], index[each], _MUCH) for each in before[node] if each in free]
    if not free:
        return []
    rows, columns, capacity = (np.array(each, dtype=np.int32) for each in zip(*ends, strict=True))
    graph = coo_matrix((capacity, (rows, columns)), shape=(size, size)).tocsr()
    graph.data = np.minimum(graph.data, _MUCH).astype(np.int32)
    left = graph - maximum_flow(graph, 0, 1).flow
    left.data = (left.data > 0).astype(np.int32)
    left.eliminate_zeros()
    reached = set(breadth_first_order(left, 0, return_predecessors=False).tolist())
    return [node for node, place in index.items() if place not in reached]
