"""The library's blocks: the operation that each implements."""

from __future__ import annotations

from planish.registry import Registry

blocks = Registry(
    "block",
    {
        "linear": "planish.targets.fpga.blocks.linear:LinearBlock",
        "requantize": "planish.targets.fpga.blocks.requantize:RequantizeBlock",
        "lookup": "planish.targets.fpga.blocks.lookup:LookupBlock",
        "constant": "planish.targets.fpga.blocks.constant:ConstantBlock",
        "add": "planish.targets.fpga.blocks.add:AddBlock",
        "convolve": "planish.targets.fpga.blocks.convolve:ConvolveBlock",
        "pool": "planish.targets.fpga.blocks.pool:PoolBlock",
        "slice": "planish.targets.fpga.blocks.moves:SliceBlock",
        "concat": "planish.targets.fpga.blocks.moves:ConcatBlock",
        "spread": "planish.targets.fpga.blocks.moves:SpreadBlock",
        "repeat": "planish.targets.fpga.blocks.moves:RepeatBlock",
        "reduce": "planish.targets.fpga.blocks.reduce:ReduceBlock",
        "normalize": "planish.targets.fpga.blocks.normalize:NormalizeBlock",
        "microscale": "planish.targets.fpga.blocks.microscale:MicroscaleBlock",
        "multiply": "planish.targets.fpga.blocks.multiply:MultiplyBlock",
        "matmul": "planish.targets.fpga.blocks.matmul:MatMulBlock",
        "permute": "planish.targets.fpga.blocks.permute:PermuteBlock",
        "embed": "planish.targets.fpga.blocks.embed:EmbedBlock",
        "aggregate": "planish.targets.fpga.blocks.aggregate:AggregateBlock",
    },
)
"""Name of an operation's class, in lower case -> `Block`."""
