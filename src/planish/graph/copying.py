"""Copies of graphs and of tensors."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn


def copy_graph(graph: fx.Graph) -> fx.Graph:
    """A copy whose nodes have the same names and their own `meta` dictionaries."""
    new = fx.Graph()
    places: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        places[node] = new.node_copy(node, places.__getitem__)
        if places[node].name != node.name:
            places[node]._rename(node.name)
    new.set_codegen(copy.copy(graph._codegen))
    return new


def clone(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with storage of its own; a parameter stays one."""
    fresh = tensor.detach().clone()
    return nn.Parameter(fresh, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fresh
