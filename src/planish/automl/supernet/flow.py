"""The synaptic flow of every point of a supernet, from two runs of it."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from planish.automl.supernet.network import Supernet
from planish.automl.supernet.run import Memory, Program
from planish.automl.supernet.slots import Point
from planish.graph.copying import copy_graph

STEP = 1e-3


@dataclass(frozen=True)
class Positive:
    """A supernet with the absolute values of its parameters, in double precision, and without batch norms.

    Attributes:
        net: The supernet itself, for what its points are called.
        twin: The copy.
    """

    net: Supernet
    twin: fx.GraphModule


def flows(start: Positive, points: Sequence[Point]) -> list[float]:
    """The logarithm of each point's synaptic flow (Tanaka et al., arXiv 2006.05467, equation 2).

    The sum over all parameters of parameter times gradient is the derivative by a factor that all parameters have in
    common: a central difference, for which nothing is run backwards, so that points share what they have in common.

    Args:
        start: Of a supernet, which may have trained since.
        points: Which.
    """
    net, twin = start.net, start.twin
    program = Program.of(twin, "none")
    inputs = [
        torch.ones_like(leaf, dtype=torch.float64) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
        for leaf in pytree.tree_leaves(net.graph.example)
    ]
    sums: list[list[float]] = []
    kept = [parameter.clone() for parameter in twin.parameters()]
    for factor in (1 - STEP, 1 + STEP):
        for parameter, value in zip(twin.parameters(), kept, strict=True):
            parameter.copy_(value * factor)
        memory = Memory()
        with torch.no_grad():
            answers = (program.run(inputs, net.choice_of(point), memory) for point in points)
            sums.append([float(sum(each.sum() for each in answer)) for answer in answers])
    slopes = [(above - below) / (2 * STEP) for below, above in zip(*sums, strict=True)]
    return [math.log(slope) if slope > 0 else -math.inf for slope in slopes]


def positive(net: Supernet) -> Positive:
    """Keep a supernet's parameters as they are now."""
    graph, own = net.net.graph, net.net
    known = {**dict(own.named_parameters(remove_duplicate=False)), **dict(own.named_buffers(remove_duplicate=False))}
    parts: dict[str, Tensor | nn.Module] = {}
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "call_module":
            with warnings.catch_warnings():  # torch's copy of an exported graph warns of torch's own tree specs
                warnings.simplefilter("ignore", FutureWarning)
                parts[name] = copy.deepcopy(own.get_submodule(name)).double()
        elif node.op == "get_attr":
            value = known[name].detach().clone()
            parts[name] = value.double() if value.is_floating_point() else value
            if isinstance(known[name], nn.Parameter):
                parts[name] = nn.Parameter(value.double(), requires_grad=False)
    twin = fx.GraphModule(parts, copy_graph(graph))  # type: ignore[arg-type]  # it also takes a table
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm):
                module.register_module(name, nn.Identity())
    for parameter in twin.parameters():
        parameter.requires_grad_(False).abs_()
    return Positive(net, twin)
