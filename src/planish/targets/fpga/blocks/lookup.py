"""`Lookup`: a table for each lane."""

from __future__ import annotations

from typing import cast

import numpy as np
from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance, Memory
from planish.targets.fpga.blocks.matvec import in_block
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.program import Lookup, Operation, Value


class LookupBlock(Block):
    """The number's word is the address, so negative ones follow the positive ones."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(operation.output.row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        lookup, (x,), lanes = cast(Lookup, operation), inputs, fold.pe
        codes, bits = x.codes, lookup.output.codes.bits
        words = np.zeros(1 << codes.bits, dtype=np.int64)
        words[np.arange(codes.low, codes.high + 1) & (len(words) - 1)] = lookup.table
        return Instance(
            "lookup",
            {
                "LANES": lanes,
                "WIDTH": codes.bits,
                "OUT_WIDTH": bits,
                "BLOCK": int(in_block(len(words), bits)),
            },
            {"TABLE": Memory(words, bits)},
            lanes_in=(lanes,),
            lanes_out=lanes,
            interval=x.size // x.row * beats_of(x.row, lanes),
            latency=2,
        )
