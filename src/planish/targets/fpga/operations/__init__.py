"""The operations of the integer program, by theme."""

from __future__ import annotations

from planish.targets.fpga.operations.base import Operation
from planish.targets.fpga.operations.layout import Concat, Permute, Repeat, Reshape, Slice, Spread
from planish.targets.fpga.operations.pointwise import Add, Constant, Lookup, Requantize
from planish.targets.fpga.operations.products import Aggregate, Convolve, Embed, Linear, MatMul, Multiply
from planish.targets.fpga.operations.rows import Microscale, Normalize, Pool, Reduce

KINDS: dict[str, type[Operation]] = {
    kind.__name__: kind
    for kind in (
        *(Linear, Convolve, Multiply, MatMul, Embed, Aggregate),
        *(Requantize, Add, Constant, Lookup),
        *(Reduce, Normalize, Microscale, Pool),
        *(Permute, Reshape, Slice, Concat, Spread, Repeat),
    )
}
"""Every operation by its name."""
