"""`Pool`: windows, each reduced to one number a channel."""

from __future__ import annotations

from typing import cast

from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.blocks.windows import Windows
from planish.targets.fpga.program import Operation, Pool, Value


class PoolBlock(Block):
    """Channels beside each other, the places of the window one after the other."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(inputs[0].row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        pool, (x,), lanes = cast(Pool, operation), inputs, fold.pe
        ones = (1,) * len(pool.kernel)
        sizes, counts = x.shape[:-1], pool.output.shape[:-1]
        windows = Windows(sizes, counts, pool.kernel, pool.stride, pool.padding, ones, beats_of(x.row, lanes))
        parameters = windows.parameters()
        for axis in range(3):
            del parameters[f"DILATION_{axis}"]
        return Instance(
            "pool",
            parameters
            | {
                "LANES": lanes,
                "WIDTH": x.codes.bits,
                "SIGNED": int(x.codes.signed),
                "MAX": int(pool.kind == "max"),
                "OUT_WIDTH": pool.output.codes.bits,
            },
            lanes_in=(lanes,),
            lanes_out=lanes,
            interval=windows.interval(),
            latency=windows.latency + windows.taps,
        )
