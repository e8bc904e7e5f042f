"""What a weight was before it was compressed."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from planish.compress.sites import weight_name, weight_of
from planish.graph import Graph, Node
from planish.graph.ops import base_name

AWAY = 0.75
"""A tensor whose squared distance, as a share of its square, is more is in other coordinates: rotated, not rounded."""


def original(node: Node) -> Tensor:
    """The weight that a layer had in the graph that the recipe started from, or else before its last casts.

    Where an exact pass has since scaled or turned the weight, that graph's tensor is no measure of what was lost, and
    the numbers under the casts are taken too.

    Args:
        node: A layer whose weight depends on no input.
    """
    now = weight_of(node)
    assert now is not None
    assert node.weight is not None
    origin = node.graph.origin
    first = None if origin is None else origin.tensors.get(weight_name(node))
    if first is not None and first.shape == now.shape and _alike(first.detach().double(), now.detach().double()):
        return first.detach()
    under = _uncast(node.graph, node.weight.fx)
    return under.detach()


def _alike(first: Tensor, now: Tensor) -> bool:
    """Whether `now` is `first` with numbers lost, and not in other units: no scale of any channel explains much."""
    lost = (first - now).square().sum()
    if lost > AWAY * first.square().sum():
        return False
    for axis in range(first.dim()):
        others = [other for other in range(first.dim()) if other != axis]
        fitted = (first * now).sum(others, keepdim=True) / first.square().sum(others, keepdim=True).clamp_min(1e-30)
        if (fitted * first - now).square().sum() < 0.5 * lost:
            return False
    return True


def _uncast(graph: Graph, node: fx.Node) -> Tensor:
    """The value of a weight expression were no cast there."""
    if node.op == "call_function" and base_name(node.target) == "cast":
        return _uncast(graph, node.all_input_nodes[0])
    if node.op == "get_attr":
        return graph.tensors[str(node.target)]
    values = {source: _uncast(graph, source) for source in node.all_input_nodes}
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]
