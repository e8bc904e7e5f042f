"""`Constant`: numbers from a memory."""

from __future__ import annotations

from typing import cast

import numpy as np
from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance, Memory
from planish.targets.fpga.blocks.matvec import in_block
from planish.targets.fpga.blocks.rows import row_folds
from planish.targets.fpga.program import Constant, Operation, Value


class ConstantBlock(Block):
    """The same sample for ever."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(operation.output.row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        constant, lanes = cast(Constant, operation), fold.pe
        row, bits = constant.output.row, constant.output.codes.bits
        words = np.pad(constant.value.reshape(-1, row), ((0, 0), (0, -row % lanes))).reshape(-1, lanes)
        return Instance(
            "constant",
            {"LANES": lanes, "WIDTH": bits, "BEATS": len(words), "BLOCK": int(in_block(len(words), lanes * bits))},
            {"WORDS": Memory(words, bits)},
            lanes_in=(),
            lanes_out=lanes,
            interval=len(words),
            latency=3,
        )
