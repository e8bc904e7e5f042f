"""`Permute`: axes in another order."""

from __future__ import annotations

from typing import cast

import numpy as np
from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.program import Operation, Permute, Value

LEVELS = 6
"""Counters of rtl/permute.sv."""


class PermuteBlock(Block):
    """A memory that is written in one order and read in another; only wires where both are the same."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(inputs[0].row) if _keeps_rows(cast(Permute, operation)) else [Fold()]

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        permute, (x,) = cast(Permute, operation), inputs
        operation.require(x.codes.bits == permute.output.codes.bits, f"the words of {x.name} change their width")
        lanes = fold.simd if _keeps_rows(permute) else 1
        shape = (*x.shape[:-1], beats_of(x.row, lanes))
        beats, bits = int(np.prod(shape)), lanes * x.codes.bits
        counters = _counters(shape, permute.axes)
        if len(counters) <= 1:
            wires = {"BITS": bits, "BEATS": 1, "TIMES": 1}
            return Instance("replay", wires, lanes_in=(lanes,), lanes_out=lanes, interval=beats, latency=0)
        operation.require(len(counters) <= LEVELS, f"{len(counters)} axes change places, more than {LEVELS}")
        parameters = {"BITS": bits, "BEATS": beats}
        for level, (count, step) in enumerate([(1, 0)] * (LEVELS - len(counters)) + counters):
            parameters |= {f"COUNT{level}": count, f"STEP{level}": step}
        return Instance("permute", parameters, lanes_in=(lanes,), lanes_out=lanes, interval=beats, latency=beats + 2)


def _keeps_rows(permute: Permute) -> bool:
    return permute.axes[-1] == len(permute.axes) - 1


def _counters(shape: tuple[int, ...], axes: tuple[int, ...]) -> list[tuple[int, int]]:
    """How far each counter runs and how far apart its beats lie, the outermost first: as few as the order allows."""
    steps = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    found: list[tuple[int, int]] = []
    for axis in axes:
        count, step = shape[axis], steps[axis]
        if count == 1:
            continue
        if found and found[-1][1] == count * step:  # one goes on where the other ends
            count *= found.pop()[0]
        found.append((count, step))
    return found
