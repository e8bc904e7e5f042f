"""What the operations of a captured graph are, and which of their arguments plays which role.

The one place that knows where an operation keeps its input, weight and bias. Everything that looks for weights
(compression, cost, lowering) asks here, so that a new weighted operation is one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Roles:
    """Argument positions of an operation with a weight, and the weight's own axes.

    Attributes:
        input: Position of the activation that meets the weight.
        weight: Position of the weight.
        bias: Position of the bias; None where the operation has none.
        out_axis: The weight's output-channel axis: per-channel scales run along it.
        in_axis: The weight's input-channel axis.
    """

    input: int
    weight: int
    bias: int | None
    out_axis: int
    in_axis: int


_CONV = Roles(input=0, weight=1, bias=2, out_axis=0, in_axis=1)
_CONV_TRANSPOSED = Roles(input=0, weight=1, bias=2, out_axis=1, in_axis=0)

ROLES: dict[str, Roles] = {
    "linear": Roles(input=0, weight=1, bias=2, out_axis=0, in_axis=1),
    "addmm": Roles(input=1, weight=2, bias=0, out_axis=1, in_axis=0),
    "conv1d": _CONV,
    "conv2d": _CONV,
    "conv3d": _CONV,
    "convolution": _CONV,
    "conv_transpose1d": _CONV_TRANSPOSED,
    "conv_transpose2d": _CONV_TRANSPOSED,
    "conv_transpose3d": _CONV_TRANSPOSED,
    "embedding": Roles(input=1, weight=0, bias=None, out_axis=0, in_axis=1),
}

FAMILIES: dict[str, frozenset[str]] = {
    "linear": frozenset({"linear", "addmm"}),
    "conv": frozenset(name for name in ROLES if name.startswith("conv")),
    "embedding": frozenset({"embedding"}),
    "matmul": frozenset({"matmul", "mm", "bmm", "baddbmm", "einsum"}),
    "attention": frozenset({"scaled_dot_product_attention"}),
    "norm": frozenset({"layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"}),
    "recurrent": frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"}),
    "weighted": frozenset(ROLES),
    "cast": frozenset({"cast"}),
}


def base_name(target: Any) -> str:
    """ "linear" for `aten.linear.default`, "cast" for `planish.cast.default`, "getitem" for `operator.getitem`."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.partition("::")[2]
    if isinstance(target, torch._ops.HigherOrderOperator):
        return target.name()
    return getattr(target, "__name__", str(target))
