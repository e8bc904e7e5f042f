"""Putting a list of nodes and a table of tensors together into a module that runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import fx, nn

if TYPE_CHECKING:
    from planish.graph.graph import Graph

Module = TypeVar("Module", bound=fx.GraphModule)


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


def assemble(owner: Graph, kind: type[Module], graph: fx.Graph, tensors: Mapping[str, torch.Tensor]) -> Module:
    """A module that runs `graph` over `tensors`, each in its place in the user's module tree."""
    wanted = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    values = {name: value for name, value in {**tensors, **owner.branches}.items() if name in wanted}
    module = kind(values, graph)  # type: ignore[arg-type]  # GraphModule also takes a table of attributes
    for name in values.keys() - owner.parameter_names - owner.buffers - owner.branches.keys():
        parent, _, leaf = name.rpartition(".")
        module.get_submodule(parent)._non_persistent_buffers_set.add(leaf)
    return module


def clone(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with storage of its own; a parameter stays one."""
    fresh = tensor.detach().clone()
    return nn.Parameter(fresh, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fresh
