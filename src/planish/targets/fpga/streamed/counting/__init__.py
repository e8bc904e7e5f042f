"""What each block is made of, counted from its parameters."""

from __future__ import annotations

from collections.abc import Callable

from planish.targets.fpga.streamed.counting import products, streams, windows
from planish.targets.fpga.streamed.counting.parts import Count, Parameters

COUNTERS: dict[str, Callable[[Parameters], Count]] = {
    "matvec": products.matvec,
    "matmul": products.matmul,
    "aggregate": products.aggregate,
    "normalize": products.normalize,
    "microscale": streams.microscale,
    "convolve": windows.convolve,
    "depthwise": windows.depthwise,
    "pool": windows.pool,
    "requantize": streams.requantize,
    "lookup": streams.lookup,
    "add": streams.add,
    "multiply": streams.multiply,
    "reduce": streams.reduce,
    "permute": streams.permute,
    "embed": streams.embed,
    "constant": streams.constant,
    "fifo": streams.fifo,
    "lanes": streams.lanes,
    "skid": streams.skid,
    "split": streams.split,
    "concat": streams.concat,
    "slice": streams.part,
    "spread": streams.spread,
    "upsample": streams.upsample,
    "replay": streams.replay,
}
"""By the module's name."""

__all__ = ["COUNTERS", "Count", "Parameters"]
