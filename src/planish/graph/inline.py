"""Regions that torch keeps as calls of a sub-graph (`no_grad`, `autocast`), put back in line.

A region without gradients becomes its operations with a `detach` on what leaves it: the same values and gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.errors import ModelError
from planish.graph.node import source_line

_GRAD = "wrap_with_set_grad_enabled"
_AUTOCAST = "wrap_with_autocast"


def inline_regions(module: fx.GraphModule) -> None:
    """Replace every such call by the operations of its sub-graph, also where they are nested.

    Raises:
        ModelError: A region runs under `autocast`, whose casts depend on the device.
    """
    graph = module.graph
    pending = True
    while pending:
        pending = False
        for call in list(graph.nodes):
            name = call.target.name() if isinstance(call.target, torch._ops.HigherOrderOperator) else ""
            if name == _GRAD:
                enabled, body, *operands = call.args
                _inline(module, call, body, operands, detach=not enabled)
            elif name == _AUTOCAST:
                _, dtype, enabled, _, body, *operands = call.args
                if enabled:
                    raise ModelError(
                        f"part of the model runs under torch.autocast ({dtype})",
                        source_line(call.meta.get("stack_trace") or ""),
                        "capture the model without autocast; cast it with model.to(dtype) instead",
                    )
                _inline(module, call, body, operands, detach=False)
            else:
                continue
            pending = True


def _inline(module: fx.GraphModule, call: fx.Node, body: Any, operands: list[Any], detach: bool) -> None:
    graph = module.graph
    region: fx.GraphModule = getattr(module, str(body.target))
    supply = iter(operands)
    places: dict[fx.Node, Any] = {}
    with graph.inserting_before(call):
        for node in region.graph.nodes:
            if node.op == "placeholder":
                places[node] = next(supply)
            elif node.op == "get_attr":
                name = f"{body.target}_{node.target}"
                setattr(module, name, getattr(region, str(node.target)))
                places[node] = graph.create_node("get_attr", name)
                places[node].meta = dict(node.meta)
            elif node.op == "call_function":
                places[node] = graph.node_copy(node, places.__getitem__)
        results: Any = fx.map_arg(region.graph.output_node().args[0], places.__getitem__)
        results = list(results) if isinstance(results, list | tuple) else [results]
        if detach:
            results = [_detached(graph, result) for result in results]
    for user in list(call.users):  # a region's results are read by getitem
        if user.op == "call_function" and getattr(user.target, "__name__", "") == "getitem":
            user.replace_all_uses_with(results[int(user.args[1])])  # pyright: ignore[reportArgumentType]
            graph.erase_node(user)
    if call.users:
        call.replace_all_uses_with(results[0])
    graph.erase_node(call)
    if not body.users:
        graph.erase_node(body)


def _detached(graph: fx.Graph, value: Any) -> Any:
    if not isinstance(value, fx.Node) or not isinstance(value.meta.get("val"), torch.Tensor):
        return value
    node = graph.call_function(torch.ops.aten.detach.default, (value,))
    node.meta = dict(value.meta)
    return node
