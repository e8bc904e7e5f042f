"""`Linear`: the matrix-vector unit."""

from __future__ import annotations

from typing import cast

import numpy as np
from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.matvec import Folded, folds
from planish.targets.fpga.program import Linear, Operation, Value


class LinearBlock(Block):
    """Rows of the input, one after the other, through `matvec`."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        weight = cast(Linear, operation).weight
        product = inputs[0].codes.bits + int(np.abs(weight).max(initial=1)).bit_length() + 1
        rows, columns = weight.shape
        return [Fold(simd, pe) for simd, pe in folds(rows, columns, product, operation.output.codes.bits)]

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        linear, (x,) = cast(Linear, operation), inputs
        rows, columns = linear.weight.shape
        simd, pe = min(fold.simd, columns), min(fold.pe, rows)
        weight = np.pad(linear.weight, ((0, 0), (0, -columns % simd))).reshape(1, rows, -1, simd)
        bias = None if linear.bias is None else linear.bias[None]
        unit = Folded(weight, bias, x.codes, linear.output.codes, pe, fold.dsp)
        return Instance(
            "matvec",
            unit.parameters(),
            unit.memories(),
            lanes_in=(simd,),
            lanes_out=pe,
            interval=x.size // columns * unit.interval,
            latency=unit.latency,
        )
