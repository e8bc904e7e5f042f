"""Sums over the neighbors in a fixed graph, as PyTorch Geometric writes them, as products with a constant matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from planish.graph import Graph, Node

_SUMS = ("scatter_add", "scatter_add_", "index_add", "index_add_")
_ZEROS = ("zeros", "new_zeros", "zeros_like")


def as_products(graph: Graph) -> Graph:
    """Each sum of rows, chosen and placed by constants, as `matrix @ rows`; a graph without any as it is."""
    sums = [node for node in graph.nodes if node.op in _SUMS]
    if not sums:
        return graph
    known, edit = _constants(graph), graph.edit()
    for node in sums:
        found = _matrix(node, known)
        if found is not None:
            rows, matrix = found
            at = edit.node(node.name)
            edges = edit.add(f"{node.name}__neighbors", matrix)
            product = edit.call(torch.ops.aten.matmul.default, edges, edit.node(rows.name), before=at)
            edit.replace(at, product)
            edit.erase(at)
    return edit.done()


def _constants(graph: Graph) -> dict[fx.Node, Any]:
    """The value of each step that depends on no input."""
    known: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in graph.fx.nodes:
            if node.op == "get_attr":
                known[node] = graph.tensors[str(node.target)].detach().clone()
            elif node.op == "call_function" and all(source in known for source in node.all_input_nodes):
                args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), known.__getitem__)
                known[node] = node.target(*args, **kwargs)  # type: ignore[operator]  # a call
    return known


def _matrix(node: Node, known: dict[fx.Node, Any]) -> tuple[Node, Tensor] | None:
    """The rows that are summed and the matrix that sums them; None where an input chooses them, or axes other than
    rows."""
    start, axis, places, messages = node.args[:4]
    while isinstance(places, Node) and places.op in ("expand", "expand_as"):
        places = places.inputs[0]
    weight = None
    if messages.op == "mul" and len(messages.inputs) == 2:
        weight, messages = messages.args[:2] if messages.args[0].fx in known else messages.args[1::-1]
    if messages.op != "index_select" or start.op not in _ZEROS or places.fx not in known:
        return None
    rows, other, chosen = messages.args
    rank = rows.value.dim()
    if rank != 2 or axis % rank != 0 or other % rank != 0 or chosen.fx not in known:
        return None
    if weight is not None and (weight.fx not in known or known[weight.fx].numel() != known[chosen.fx].numel()):
        return None
    source, target = known[chosen.fx].flatten(), known[places.fx].flatten()
    factor = torch.ones(len(source)) if weight is None else known[weight.fx].flatten()
    shape = (int(node.value.shape[0]), int(rows.value.shape[0]))
    return rows, torch.zeros(shape).index_put((target, source), factor.float(), accumulate=True)
