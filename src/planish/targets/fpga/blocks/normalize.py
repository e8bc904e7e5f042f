"""`Normalize`: a row divided by its number, or by the root of it."""

from __future__ import annotations

from typing import cast

from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance, Memory
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.operations.rounding import ROUNDINGS
from planish.targets.fpga.program import Normalize, Operation, Value


class NormalizeBlock(Block):
    """The row's number becomes a factor and a shift once; each lane multiplies and shifts."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(inputs[0].row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        normalize, (x, number) = cast(Normalize, operation), inputs
        beats, made, bits = beats_of(x.row, fold.simd), normalize.output.codes, number.codes.bits
        factor_bits = max(1, int(normalize.table.max()).bit_length())
        return Instance(
            "normalize",
            {
                "LANES": fold.simd,
                "A_WIDTH": x.codes.bits,
                "A_SIGNED": int(x.codes.signed),
                "B_WIDTH": bits,
                "BEATS": beats,
                "ROOT": int(normalize.root),
                "INDEX": normalize.index,
                "TABLE_BITS": factor_bits,
                "SHIFT": normalize.shift,
                "ROUNDING": ROUNDINGS.index(normalize.rounding),
                "OUT_WIDTH": made.bits,
                "LOW": made.low,
                "HIGH": made.high,
                "DSP": int(fold.dsp),
            },
            {"TABLE": Memory(normalize.table, factor_bits)},
            lanes_in=(fold.simd, 1),
            lanes_out=fold.simd,
            interval=x.size // x.row * beats,
            latency=7 + max(1, (bits - 1).bit_length()) + 2 + (beats > 1),
        )
