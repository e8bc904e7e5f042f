"""Residual branches, which can go as a whole: `x + f(x)` without `f` is `x`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from planish.compress.sites import weight_of
from planish.compress.structured.scores import Criterion
from planish.compress.sweep import check_items
from planish.compress.watch import Watch
from planish.errors import OptionError
from planish.graph import Data, Graph, Node, Progress


@dataclass(frozen=True)
class Branch:
    """One residual branch.

    Attributes:
        addition: Name of `x + f(x)`.
        skip: Name of `x`.
        end: Name of `f(x)`.
        layers: Names of the layers in between.
        path: Module path of the last of them.
    """

    addition: str
    skip: str
    end: str
    layers: tuple[str, ...]
    path: str


def branches(graph: Graph) -> list[Branch]:
    """Every addition of a tensor and what layers make of that same tensor, in execution order."""
    order = {node: place for place, node in enumerate(graph.fx.nodes)}
    above: dict[fx.Node, int] = {}  # a bit for each node that this one depends on, itself included
    for node, place in order.items():
        above[node] = 1 << place
        for source in node.all_input_nodes:
            above[node] |= above[source]
    weights = [node for node in graph.nodes if node.weight is not None and weight_of(node) is not None]
    known = [node for node in weights if node.fx in order]
    found: list[Branch] = []
    for node in graph.nodes:
        if node.op not in ("add", "add_") or node.fx not in order or len(node.fx.all_input_nodes) != 2:
            continue
        for skip, end in (node.inputs, node.inputs[::-1]):
            inside = [
                each
                for each in known
                if above[end.fx] >> order[each.fx] & 1 and above[each.fx] >> order[skip.fx] & 1 and each != skip
            ]
            same = skip.shape == end.shape == node.shape and skip.dtype == node.dtype
            if inside and same and skip.kind != "tensor" and above[end.fx] >> order[skip.fx] & 1:
                names = tuple(each.name for each in inside)
                found.append(Branch(node.name, skip.name, end.name, names, inside[-1].path))
    return found


def without(graph: Graph, gone: list[Branch]) -> Graph:
    """The graph without some branches; what only they read goes with them."""
    edit = graph.edit()
    replaced: dict[str, Node] = {}
    for branch in gone:
        skip = replaced.get(branch.skip, edit.node(branch.skip))
        edit.replace(edit.node(branch.addition), skip)
        replaced[branch.addition] = skip
    return edit.done()


def score(
    graph: Graph, found: list[Branch], by: Criterion, data: Data | None, seed: int, progress: Progress
) -> list[float]:
    """How much each branch matters.

    "taylor" is the mean squared first-order change of a random projection of the output when a branch is left out;
    "activation" the mean square of what it adds, as a share of the stream it adds to; "magnitude" the mean square of
    its weights.

    Raises:
        OptionError: The criterion looks at single channels.
    """
    generator = torch.Generator().manual_seed(seed)
    if by == "random":
        return torch.rand(len(found), generator=generator).tolist()
    if by == "magnitude":
        return [_magnitude(graph, branch) for branch in found]
    if by in ("wanda", "surgeon"):
        raise OptionError(f"{by} looks at single channels, not layers", "by", "by='taylor' or by='activation'")
    names = {name for branch in found for name in (branch.skip, branch.end)}
    watch = Watch(graph, names)
    for parameter in watch.module.parameters():
        parameter.requires_grad_(by == "taylor")
    totals = [0.0] * len(found)
    items = check_items(data, "PruneStructured")
    for place, (args, kwargs) in enumerate(items):
        progress(place, len(items), "layers")
        with torch.set_grad_enabled(by == "taylor"):
            outputs = watch(args, kwargs)
        if by == "taylor":
            noise = [torch.randn(each.shape, generator=generator) for each in outputs]
            torch.stack([(each * with_).sum() for each, with_ in zip(outputs, noise, strict=True)]).sum().backward()
            watch.module.zero_grad(set_to_none=True)
        for index, branch in enumerate(found):
            end, skip = watch.seen[branch.end], watch.seen[branch.skip]
            if by == "taylor":
                change = (end * end.grad).flatten(1).sum(1) if end.grad is not None else torch.zeros(1)
                totals[index] += float(change.detach().double().square().sum())
            else:
                totals[index] += float(end.double().square().mean() / skip.double().square().mean().clamp_min(1e-30))
    return totals


def _magnitude(graph: Graph, branch: Branch) -> float:
    values = [weight_of(graph.node(name)) for name in branch.layers]
    squares = [value.detach().double().square().mean() for value in values if value is not None]
    return float(torch.stack(squares).mean())
