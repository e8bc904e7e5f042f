"""`Reduce`: the sum or the maximum of each row."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.program import Operation, Reduce, Value


class ReduceBlock(Block):
    """A tree over the lanes of a beat, and a running result."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return [replace(fold, pe=1) for fold in row_folds(inputs[0].row)]

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        reduce, (x,) = cast(Reduce, operation), inputs
        beats = beats_of(x.row, fold.simd)
        return Instance(
            "reduce",
            {
                "LANES": fold.simd,
                "WIDTH": x.codes.bits,
                "SIGNED": int(x.codes.signed),
                "ROW": x.row,
                "MAX": int(reduce.kind == "max"),
                "OUT_WIDTH": reduce.output.codes.bits,
            },
            lanes_in=(fold.simd,),
            interval=x.size // x.row * beats,
            latency=beats + (fold.simd - 1).bit_length(),
        )
