"""`MatMul`: the product of two streams of matrices."""

from __future__ import annotations

from typing import cast

from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.matvec import folds
from planish.targets.fpga.blocks.rows import beats_of
from planish.targets.fpga.program import MatMul, Operation, Value


class MatMulBlock(Block):
    """The second matrix goes to a memory of two halves; the rows of the first pass by."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        a, b = inputs
        product = a.codes.bits + b.codes.bits
        return [Fold(simd, pe) for simd, pe in folds(operation.output.row, a.row, product, operation.output.codes.bits)]

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        matmul, (a, b) = cast(MatMul, operation), inputs
        (m, k), n = a.shape[-2:], matmul.output.row
        simd, pe = min(fold.simd, k), min(fold.pe, n)
        steps, tiles = beats_of(k, simd), beats_of(n, pe)
        loading = n * steps if matmul.transposed else k * tiles
        return Instance(
            "matmul",
            {
                "SIMD": simd,
                "PE": pe,
                "M": m,
                "K": k,
                "N": n,
                "TRANSPOSED": int(matmul.transposed),
                "A_WIDTH": a.codes.bits,
                "A_SIGNED": int(a.codes.signed),
                "B_WIDTH": b.codes.bits,
                "B_SIGNED": int(b.codes.signed),
                "OUT_WIDTH": matmul.output.codes.bits,
                "DSP": int(fold.dsp),
            },
            lanes_in=(simd, simd if matmul.transposed else pe),
            lanes_out=pe,
            interval=a.size // (m * k) * max(m * steps * tiles, loading),
            latency=loading + steps + (simd - 1).bit_length() + 5,
        )
