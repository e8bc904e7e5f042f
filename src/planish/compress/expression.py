"""A weight as an expression over tensors: how to give it other values.

What feeds a layer's weight may be `cast(w)`, `w * mask`, `cast(w) + b @ a`, or any nesting of such steps. A pass that
computes new values for a weight solves the expression for the one tensor at its bottom that is the user's, so that it
need not know which passes were there before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from planish.compress.sites import replace_tensor
from planish.errors import OptionError
from planish.graph import Graph, Node
from planish.graph.evaluate import base_name_of, fold
from planish.graph.ops import base_name

SAME = frozenset({"cast", "clone", "contiguous", "alias", "detach"})
"""Steps that give such values as they are: a cast, if the values are numbers of its format."""


def solvable(node: fx.Node) -> bool:
    """Whether `assign` can give the expression other values."""
    while node.op == "call_function":
        name = base_name(node.target)
        if name not in SAME and name not in _SOLVED:
            return False
        node = _inner(node)
    return node.op == "get_attr"


def scaled_by(weight: Node | None) -> Node | None:
    """The tensor that scales a weight as it is scaled itself, channel by channel: the weight, or what stored masks
    multiply and nothing else reads; None where another step is in between."""
    shape = None if weight is None else weight.shape
    while weight is not None and weight.kind == "call":
        if weight.op != "mul" or not base_name_of(weight.fx):
            return None
        inner = weight.graph.node(_inner(weight.fx).name)
        masks = [argument for argument in weight.args[:2] if argument != inner]
        alone = inner.users == (weight,) and len(masks) == 1 and getattr(masks[0], "kind", "tensor") == "tensor"
        weight = inner if alone else None
    return weight if weight is not None and weight.kind == "tensor" and weight.shape == shape else None


def assign(graph: Graph, node: fx.Node, value: Tensor) -> None:
    """Change the tensor at the bottom of a weight expression such that the expression has these values.

    Where a mask is 0 the hidden number stays; a cast rounds what is not a number of its format.

    Args:
        graph: Its tensors are changed; nobody else may hold it.
        node: The expression's last step.
        value: Of its shape.

    Raises:
        OptionError: A step of the expression cannot be undone; names it.
    """
    while node.op == "call_function":
        name = base_name(node.target)
        if name not in SAME:
            if name not in _SOLVED:
                raise OptionError(
                    f"the values of a weight cannot be changed through {name!r}", base_name_of(node), "another order"
                )
            value = _SOLVED[name](graph, node, value)
        node = _inner(node)
    old = graph.tensors[str(node.target)]
    replace_tensor(graph, str(node.target), value.to(old.dtype).reshape(old.shape).contiguous())


def _inner(node: fx.Node) -> fx.Node:
    """The operand with the user's tensor in it."""
    return next(source for source in node.all_input_nodes if base_name_of(source))


def _other(graph: Graph, node: fx.Node) -> Tensor | float:
    """The other operand of a step with two."""
    inner = _inner(node)
    operand = next(argument for argument in node.args[:2] if argument is not inner)
    if not isinstance(operand, fx.Node):
        return float(operand)  # type: ignore[arg-type]
    known = fold(graph, operand)
    assert known is not None, "a weight expression depends on tensors only"
    return known


def _current(graph: Graph, node: fx.Node) -> Tensor:
    value = fold(graph, node)
    assert value is not None, "a weight expression depends on tensors only"
    return value


def _unscaled(graph: Graph, node: fx.Node, value: Tensor) -> Tensor:
    factor = torch.as_tensor(_other(graph, node), dtype=value.dtype)
    if node.args[0] is not _inner(node) and base_name(node.target) == "div":
        raise OptionError("a weight in a denominator cannot be changed", base_name_of(node))
    factor = 1 / factor if base_name(node.target) == "div" else factor
    return torch.where(factor != 0, value / factor, _current(graph, _inner(node)))


def _without(graph: Graph, node: fx.Node, value: Tensor) -> Tensor:
    alpha = float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]
    first = node.args[0] is _inner(node)
    if base_name(node.target) == "add":
        return value - alpha * _other(graph, node) if first else (value - _other(graph, node)) / alpha
    return value + alpha * _other(graph, node) if first else (_other(graph, node) - value) / alpha


def _unmultiplied(graph: Graph, node: fx.Node, value: Tensor) -> Tensor:
    factor = torch.as_tensor(_other(graph, node)).double()
    if node.args[0] is _inner(node):
        return torch.linalg.lstsq(factor.mT, value.double().mT).solution.mT
    return torch.linalg.lstsq(factor, value.double()).solution


def _swapped(_graph: Graph, node: fx.Node, value: Tensor) -> Tensor:
    return value.transpose(*node.args[1:3]) if base_name(node.target) == "transpose" else value.t()  # type: ignore[arg-type]


def _unpermuted(_graph: Graph, node: fx.Node, value: Tensor) -> Tensor:
    axes = [int(axis) % value.ndim for axis in node.args[1]]  # type: ignore[union-attr, arg-type]
    return value.permute([axes.index(axis) for axis in range(value.ndim)])


def _reshaped(_graph: Graph, node: fx.Node, value: Tensor) -> Tensor:
    return value.reshape(_inner(node).meta["val"].shape)


_SOLVED = {
    "mul": _unscaled,
    "div": _unscaled,
    "add": _without,
    "sub": _without,
    "matmul": _unmultiplied,
    "mm": _unmultiplied,
    "t": _swapped,
    "transpose": _swapped,
    "permute": _unpermuted,
    "view": _reshaped,
    "reshape": _reshaped,
}
