"""`Requantize`: a multiplication, unless it is by a power of two, then rounding and saturation."""

from __future__ import annotations

from typing import cast

import numpy as np
from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance, Memory
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.program import Operation, Requantize, Value


class RequantizeBlock(Block):
    """As many numbers out as in."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(operation.output.row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        requantize, (x,), lanes = cast(Requantize, operation), inputs, fold.pe
        codes, beats = requantize.output.codes, beats_of(x.row, lanes)
        operation.require(codes.bits < 32, f"results of {codes.bits} bits; the block rounds to 31 or fewer")
        twos = _shared_twos(requantize)
        factors = requantize.multiplier >> twos
        channels = factors.ndim > 0 and bool((factors != factors.flat[0]).any())
        width = 0 if bool((factors == 1).all()) else max(int(factors.max()).bit_length(), 1)
        memories = {}
        if width and channels:
            filled = np.pad(factors, (0, -x.row % lanes)).reshape(-1, lanes)
            memories["FACTORS"] = Memory(filled, width)
        return Instance(
            "requantize",
            {
                "LANES": lanes,
                "WIDTH": x.codes.bits,
                "SIGNED": int(x.codes.signed),
                "BEATS": beats,
                "FACTOR_WIDTH": width,
                "CHANNELS": int(channels),
                "FACTOR": int(factors.flat[0]),
                "SHIFT": requantize.shift - twos,
                "EVEN": int(requantize.rounding == "even"),
                "UP": int(requantize.rounding == "up"),
                "OUT_WIDTH": codes.bits,
                "LOW": codes.low,
                "HIGH": codes.high,
                "DSP": int(fold.dsp),
            },
            memories,
            lanes_in=(lanes,),
            lanes_out=lanes,
            interval=x.size // x.row * beats,
            latency=3 + 3 * (width > 0) + 2 * (width > 0 and channels),
        )


def _shared_twos(requantize: Requantize) -> int:
    """How often two divides every multiplier: so much less needs to be multiplied, and shifted back."""
    bits = int(np.bitwise_or.reduce(requantize.multiplier, axis=None))
    return (bits & -bits).bit_length() - 1 if bits else 0
