"""Putting a list of nodes and a table of tensors together into a module that runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import fx, nn

from planish.graph.branches import Bodies
from planish.graph.hierarchy import Cutter, Part, number, register, submodule
from planish.graph.modes import COUNTER

if TYPE_CHECKING:
    from planish.graph.graph import Graph

Module = TypeVar("Module", bound=fx.GraphModule)


def assemble(
    owner: Graph, kind: type[Module], graph: fx.Graph, tensors: Mapping[str, torch.Tensor], bodies: Bodies
) -> Module:
    """A module that runs `graph` over `tensors`, each in its place in the user's module tree."""
    module = kind({**tensors, **bodies}, graph)  # type: ignore[arg-type]  # GraphModule also takes a table of attributes
    _complete(owner, module, read_by(graph, tensors))
    return module


def assemble_tree(owner: Graph, graph: fx.Graph, tensors: Mapping[str, torch.Tensor], bodies: Bodies) -> Part:
    """The same as a tree of the user's modules."""
    net = Cutter(graph, {**tensors, **bodies}).tree()
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
