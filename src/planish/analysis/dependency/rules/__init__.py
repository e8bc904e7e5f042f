"""What each operation says of the axes that it reads and gives: one line a name, in tables."""

from __future__ import annotations

import torch

from planish.analysis.dependency.rules import products, reduce, shapes
from planish.analysis.dependency.trace import Call, Rule, Value

_POINTWISE = frozenset({"where", "masked_fill", "hardswish", "prelu", "__and__", "__or__", "__xor__", "fill", "copy"})


def _pointwise(call: Call) -> Value:
    operands = [call.trace.axes(node) for node in call.fx.all_input_nodes if call.trace.axes(node)]
    return products.joined(call, operands) if operands else ()


def default(call: Call) -> Value:
    """The rule of operations that stand in no table: number by number, of plain numbers, or unknown."""
    target = call.fx.target
    if not isinstance(call.fx.meta.get("val"), torch.Tensor | list | tuple):
        return None
    if isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags:
        return _pointwise(call)
    return call.trace.unknown(call)


def _maximum(call: Call) -> Value:
    """`max` and `min` of one tensor reduce it; of two, they are pointwise."""
    return _pointwise(call) if "other" in call.arguments else reduce.RULES["amax"](call)


RULES: dict[str, Rule] = {
    **shapes.RULES,
    **products.RULES,
    **reduce.RULES,
    **dict.fromkeys(_POINTWISE, _pointwise),
    "max": _maximum,
    "min": _maximum,
}
