"""`Embed`: rows of a table."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance, Memory
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.program import Embed, Operation, Value


class EmbedBlock(Block):
    """A memory, read row by row."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return [replace(fold, simd=1) for fold in row_folds(operation.output.row)]

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        embed, (x,) = cast(Embed, operation), inputs
        beats, bits = beats_of(embed.output.row, fold.pe), embed.output.codes.bits
        table = np.pad(embed.table, ((0, 0), (0, -embed.output.row % fold.pe)))
        return Instance(
            "embed",
            {
                "LANES": fold.pe,
                "WIDTH": bits,
                "IN_WIDTH": x.codes.bits,
                "ROWS": len(table),
                "BEATS": beats,
            },
            {"TABLE": Memory(table.reshape(-1, fold.pe), bits)},
            lanes_out=fold.pe,
            interval=x.size * beats,
            latency=3,
        )
