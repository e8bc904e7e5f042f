"""Which rule makes integers of which operation."""

from __future__ import annotations

from planish.targets.fpga.lowering import arithmetic, layers, shapes
from planish.targets.fpga.lowering.casts import cast
from planish.targets.fpga.lowering.context import Rule

RULES: dict[str, Rule] = {
    "cast": cast,
    "linear": layers.linear,
    **dict.fromkeys(["conv1d", "conv2d", "conv3d"], layers.convolution),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], layers.transposed),
    **dict.fromkeys(["max_pool1d", "max_pool2d", "max_pool3d"], layers.max_pool),
    **dict.fromkeys(["avg_pool1d", "avg_pool2d", "avg_pool3d"], layers.average_pool),
    **dict.fromkeys(["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"], layers.adaptive_pool),
    **dict.fromkeys(["upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"], layers.nearest),
    "embedding": layers.embedding,
    **dict.fromkeys(["matmul", "mm", "bmm", "mv"], layers.product),
    **dict.fromkeys(["add", "add_"], arithmetic.add),
    **dict.fromkeys(["sub", "sub_"], arithmetic.subtract),
    "rsub": arithmetic.reversed_subtract,
    **dict.fromkeys(["mul", "mul_"], arithmetic.multiply),
    **dict.fromkeys(["div", "div_"], arithmetic.divide),
    "neg": arithmetic.negate,
    **dict.fromkeys(["relu", "relu_"], arithmetic.relu),
    "sum": arithmetic.reduce_sum,
    **dict.fromkeys(["amax", "max"], arithmetic.reduce_max),
    "mean": arithmetic.mean,
    **dict.fromkeys(
        ["view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view"], shapes.reshape
    ),
    **dict.fromkeys(["permute", "transpose", "swapaxes", "t", "numpy_T"], shapes.permute),
    **dict.fromkeys(["expand", "expand_as"], shapes.expand),
    **dict.fromkeys(["slice", "select", "narrow"], shapes.cut),
    **dict.fromkeys(["chunk", "split", "split_with_sizes", "unbind", "tensor_split"], shapes.parts),
    "getitem": shapes.item,
    **dict.fromkeys(["cat", "concat", "concatenate"], shapes.concatenate),
    "stack": shapes.stack,
    **dict.fromkeys(["pad", "constant_pad_nd"], shapes.pad),
    **dict.fromkeys(
        [
            "contiguous",
            "clone",
            "alias",
            "to",
            "_to_copy",
            "detach",
            "dropout",
            "dropout_",
            "identity",
            "feature_dropout",
        ],
        shapes.same,
    ),
}
