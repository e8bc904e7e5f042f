"""`Aggregate`: a fixed sparse matrix times the rows of nodes."""

from __future__ import annotations

from typing import cast

import numpy as np
from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance, Memory
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.program import Aggregate, Codes, Operation, Value


class AggregateBlock(Block):
    """All nodes go to a memory of two halves; for each target its edges are gone through."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(inputs[0].row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        matrix, (x,) = cast(Aggregate, operation).matrix, inputs
        beats, nodes = beats_of(x.row, fold.simd), x.shape[0]
        listed = matrix != 0
        listed[:, 0] |= ~listed.any(1)  # a target that hears from nobody has an edge of weight 0
        targets, sources = np.nonzero(listed)
        weights, degrees = matrix[targets, sources], listed.sum(1)
        weight_bits = Codes(min(int(weights.min()), -1), max(int(weights.max()), 0)).bits
        source_bits = max(1, ((nodes - 1) * beats).bit_length())
        degree_bits = max(1, int(degrees.max() - 1).bit_length())
        edges = len(weights)
        entries = (weights << source_bits) | (sources * beats)
        return Instance(
            "aggregate",
            {
                "LANES": fold.simd,
                "WIDTH": x.codes.bits,
                "SIGNED": int(x.codes.signed),
                "NODES": nodes,
                "TARGETS": len(matrix),
                "BEATS": beats,
                "EDGES": edges,
                "WEIGHT": weight_bits,
                "SOURCE": source_bits,
                "DEGREE": degree_bits,
                "OUT_WIDTH": operation.output.codes.bits,
                "DSP": int(fold.dsp),
            },
            {"LIST": Memory(entries, weight_bits + source_bits), "DEGREES": Memory(degrees - 1, degree_bits)},
            lanes_in=(fold.simd,),
            lanes_out=fold.simd,
            interval=max(edges * beats + 3, nodes * beats),
            latency=nodes * beats + int(degrees[0]) + 8,
        )
