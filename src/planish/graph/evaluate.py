"""What can be known of a graph without inputs: weight expressions folded to tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from planish.graph.assemble import read_by
from planish.graph.branches import source, steps_of
from planish.graph.ops import ROLES, base_name

if TYPE_CHECKING:
    from planish.graph.graph import Graph


def fold(graph: Graph, node: fx.Node, known: dict[fx.Node, torch.Tensor] | None = None) -> torch.Tensor | None:
    """The value of a node that depends on tensors of the graph only; None if it depends on an input."""
    known = {} if known is None else known
    node = source(node, graph.calls)
    if node in known:
        return known[node]
    if node.op == "get_attr":
        return graph.tensors.get(str(node.target))
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    values = {source: fold(graph, source, known) for source in node.all_input_nodes}
    if any(value is None for value in values.values()):
        return None
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    with torch.no_grad():
        known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return known[node]


def base_tensors(graph: Graph) -> dict[str, torch.Tensor]:
    """Parameters and buffers under the user's names; a weight that is an expression is folded.

    The name of an expression is that of the one tensor in it without a `__` suffix. Where two uses of a tied weight
    have different expressions, the first use in execution order gives the value.
    """
    kept = read_by(graph.fx, graph.tensors)
    kept = {name: kept[name] for name in kept.keys() & (graph.parameter_names | graph.buffers)}
    result = {name: tensor.detach() for name, tensor in kept.items() if "__" not in name.rpartition(".")[2]}
    folded: set[str] = set()
    for node in steps_of(graph.fx, graph.branches):
        roles = ROLES.get(base_name(node.target))
        if roles is None or not isinstance(read := node.args[roles.weight], fx.Node):
            continue
        weight = source(read, graph.calls)
        name = "" if weight.op == "get_attr" else base_name_of(weight)
        value = fold(graph, weight) if name in result and name not in folded else None
        if value is not None and value.shape == result[name].shape:
            tied = {other for other in result if kept[other] is kept[name]}
            result |= dict.fromkeys(tied, value)
            folded |= tied
    return result


FACTORS = ("__a", "__b", "__core", "__merged")
"""How the tensors end that a pass has put in the place of the user's: they are then weights themselves."""


def base_name_of(node: fx.Node) -> str:
    """The dotted name of the user's tensor at the bottom of a weight expression, or of the factor that stands in its
    place; "" if there is none."""
    if node.op == "get_attr":
        name = str(node.target)
        return "" if "__" in name.rpartition(".")[2] and not name.endswith(FACTORS) else name
    return next((name for source in node.all_input_nodes if (name := base_name_of(source))), "")
