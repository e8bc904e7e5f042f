"""What stands between two blocks that give and take another number of lanes, and how long a sample takes through it.

A piece of as many numbers as divide both lanes goes through in a cycle: lanes without a common divisor are slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import numpy as np

from planish.targets.fpga.blocks.base import Instance
from planish.targets.fpga.operations.layout import Reshape, Slice
from planish.targets.fpga.program import Aggregate, Operation, Program, Value


def converter(value: Value, given: int, taken: int) -> Instance:
    """Another number of lanes for a value: rtl/lanes.sv."""
    return Instance(
        "lanes",
        {"WIDTH": value.codes.bits, "ROW": value.row, "LANES_IN": given, "LANES_OUT": taken},
        lanes_in=(given,),
        lanes_out=taken,
        interval=value.size // value.row * -(-value.row // gcd(given, taken)),
    )


def fitting(value: Value, before: Value, lanes: int) -> int:
    """Lanes in which a value's beats are also those of the reshaped one: so that no row ends within a beat."""
    shared = gcd(value.row, before.row)
    if value.row == before.row or shared % lanes == 0:
        return lanes
    return max(each for each in range(1, min(shared, lanes) + 1) if shared % each == 0)


@dataclass(frozen=True)
class Joint:
    """Where an operation reads what another one makes, or an input of the program that another one reads, too.

    Attributes:
        source: Name of what the other one makes.
        side: Which of its inputs comes with the lanes of the stream; None: its output does.
        target: Name of what the one makes that reads.
        port: At which of its inputs.
        values: The value, and what reshapes make of it on the way.
        burst: How many times faster than its average the value comes, since what would narrow it then holds up the
            block before it: a slice lets its part of a sample through and then nothing, and an aggregation makes the
            nodes of few edges fast.
    """

    source: str
    side: int | None
    target: str
    port: int
    values: tuple[Value, ...]
    burst: int = 1

    def converters(self, given: int, taken: int) -> list[Instance]:
        """What is needed between so many lanes that come and go."""
        found = []
        for before, value in pairwise(self.values):
            lanes = fitting(value, before, given)
            if lanes != given:
                found.append(converter(before, given, lanes))
            given = lanes
        return [*found, converter(self.values[-1], given, taken)] if given != taken else found


def joints(program: Program) -> list[Joint]:
    """All of a program, in its order."""
    made = {operation.output.name: operation for operation in program.operations}
    first: dict[str, tuple[str, int]] = {}  # who reads an input of the program first, and so chooses its lanes
    found = []
    for operation in program.operations:
        if isinstance(operation, Reshape):
            continue
        name = operation.output.name
        for port, read in enumerate(operation.inputs):
            path = [read]
            while isinstance(made.get(path[0]), Reshape):
                path.insert(0, made[path[0]].inputs[0])
            values = tuple(program.values[each] for each in path)
            if path[0] in made:
                found.append(Joint(path[0], None, name, port, values, _burst(made[path[0]], program)))
            elif path[0] in first:
                found.append(Joint(*first[path[0]], name, port, values))
            elif len(path) == 1:
                first[read] = name, port
    return found


def _burst(source: Operation, program: Program) -> int:
    if isinstance(source, Slice):
        return -(-program.values[source.inputs[0]].size // source.output.size)
    if isinstance(source, Aggregate):
        edges = np.maximum(np.count_nonzero(source.matrix, axis=1), 1)
        return -(-int(edges.sum()) // (len(edges) * int(edges.min())))
    return 1
