"""`Microscale`: runs of a row that share an exponent."""

from __future__ import annotations

from typing import cast

from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.operations.rounding import ROUNDINGS
from planish.targets.fpga.program import Codes, Microscale, Operation, Value

DEEP = 57
"""Beats of a run above which it waits in a block memory, which has a register more."""


class MicroscaleBlock(Block):
    """A run waits until its largest number is known; the lanes of a beat belong to one run."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        group, row = cast(Microscale, operation).group, inputs[0].row
        if row <= group:
            return row_folds(row)
        return [Fold(lanes, lanes) for lanes in range(1, group + 1) if group % lanes == 0]

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        scaled, (x,) = cast(Microscale, operation), inputs
        beats = beats_of(x.row, fold.simd)
        run = min(beats_of(scaled.group, fold.simd), beats)
        return Instance(
            "microscale",
            {
                "LANES": fold.simd,
                "WIDTH": x.codes.bits,
                "SIGNED": int(x.codes.signed),
                "ROW": x.row,
                "RUN": run,
                "TOP": scaled.top,
                "ROUNDING": ROUNDINGS.index(scaled.rounding),
                "ELEMENT": Codes(scaled.low, scaled.high).bits,
                "LOW": scaled.low,
                "HIGH": scaled.high,
                "OUT_WIDTH": scaled.output.codes.bits,
            },
            lanes_in=(fold.simd,),
            lanes_out=fold.simd,
            interval=x.size // x.row * beats,
            latency=run + 9 + (run > DEEP),
        )
