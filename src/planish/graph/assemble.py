"""Putting a list of nodes and a table of tensors together into a module that runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import fx, nn

from planish.graph.hierarchy import Cutter, Part, number, register, submodule
from planish.graph.modes import COUNTER

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
    module = kind({**tensors, **owner.branches}, graph)  # type: ignore[arg-type]  # it also takes a table of attributes
    _complete(owner, module, read_by(graph, tensors))
    return module


def assemble_tree(owner: Graph, graph: fx.Graph, tensors: Mapping[str, torch.Tensor]) -> Part:
    """The same as a tree of the user's modules."""
    net = Cutter(graph, {**tensors, **owner.branches}).tree()
    _complete(owner, net, read_by(graph, tensors))
    number(net)
    return net


def read_by(graph: fx.Graph, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that a graph reads, or counts batches in, a tied one under all of its names."""
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    names |= {node.meta[COUNTER] for node in graph.nodes if COUNTER in node.meta}
    read = {id(tensors[name]) for name in names & tensors.keys()}
    return {name: tensor for name, tensor in tensors.items() if id(tensor) in read}


def _complete(owner: Graph, module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give tied tensors all of their names, and leave constants out of the state dict, as the user's model did."""
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        parent = submodule(module, path)
        register(parent, leaf, tensor)
        if name not in owner.parameter_names | owner.buffers:
            parent._non_persistent_buffers_set.add(leaf)


def clone(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with storage of its own; a parameter stays one."""
    fresh = tensor.detach().clone()
    return nn.Parameter(fresh, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fresh
