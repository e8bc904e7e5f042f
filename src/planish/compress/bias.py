"""Bias correction: give a layer back the mean output that quantizing took from it.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), section 4.2,
with the expectation taken over calibration data.
"""

from __future__ import annotations

from typing import Any

import torch

from planish.compress.sites import is_embedding, replace_tensor
from planish.compress.sweep import Read
from planish.graph import Graph, Node


def applies(node: Node) -> bool:
    """Whether a layer computes with casts and has a bias that no other operation reads."""
    cast = any(source is not None and source.op == "cast" for source in (node.weight, node.input))
    own = node.bias is not None and node.bias.kind == "tensor" and len(node.bias.users) == 1
    return cast and own and not is_embedding(node)


def correct(graph: Graph, node: Node, read: Read) -> None:
    """Move the layer's bias by the mean error of its output.

    Args:
        graph: Its tensors are changed.
        node: A layer that `applies` accepts.
        read: Gives what it reads, weights as they are now.
    """
    assert node.bias is not None
    assert node.weight is not None
    weight_rank = (
        node.weight.value.dim()
    )  # channels come last after a linear layer, and before the space of a convolution
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batches in zip(*map(read, node.inputs), strict=True):
        actual = _call(node, [batch.actual for batch in batches])
        exact = _call(node, [batch.exact for batch in batches])
        error = (exact - actual).double().movedim(1 - weight_rank, -1).flatten(0, -2)
        total, count = total + error.sum(0), count + len(error)
    name = str(node.bias.target)
    old = graph.tensors[name].detach()
    replace_tensor(graph, name, (old.double() + total / count).to(old.dtype))


def _call(node: Node, values: list[Any]) -> torch.Tensor:
    places = dict(zip(node.fx.all_input_nodes, values, strict=True))
    args, kwargs = torch.fx.map_arg((node.fx.args, dict(node.fx.kwargs)), places.__getitem__)
    return node.target(*args, **kwargs)
