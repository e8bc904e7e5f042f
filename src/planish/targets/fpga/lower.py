"""From a prepared graph to the integer program.

A prepared graph holds fixed-point numbers wherever it rounds: each `planish::cast` becomes a requantization, or, with
the functions in front of it, a table; what stands between casts is exact. One sample is lowered: a dynamic batch counts
as 1, and so does an axis that has size 1.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from planish.errors import GraphError
from planish.graph import Graph, Node
from planish.graph.structure import dump_spec, register_structures
from planish.targets.base import Unsupported
from planish.targets.fpga.lowering.context import Blocked, Context
from planish.targets.fpga.lowering.functions import is_function
from planish.targets.fpga.lowering.held import Held
from planish.targets.fpga.lowering.rules import RULES
from planish.targets.fpga.program import Door, Program


def lower(graph: Graph) -> Program:
    """The integer program of a prepared graph.

    Raises:
        GraphError: A step has no integer meaning; names the first by its module path, and counts the others.
    """
    context, batched = _lowered(graph)
    if refused := _refused(context):
        first, *others = refused
        more = f", and {len(others)} more" if others else ""
        raise GraphError(
            f"{first.op} has no integer form: {first.reason}{more}", first.path or "the model", "the pass Prepare"
        )
    return _program(context, batched)


def unsupported(graph: Graph) -> list[Unsupported]:
    """The steps of a graph that have no integer meaning, by module path; empty for a prepared graph."""
    return _refused(_lowered(graph)[0])


def _refused(context: Context) -> list[Unsupported]:
    return [
        Unsupported(node.path, node.op, context.refused[node.fx])
        for node in context.nodes
        if node.fx in context.refused
    ]


def _lowered(graph: Graph) -> tuple[Context, set[str]]:
    if graph.branches:
        raise GraphError("hardware has no branches: the model chooses what to compute by torch.cond")
    wide = graph.to(dtype=torch.float64)
    batched = {node.name for node in wide.inputs if _is_batched(wide, node)}
    real, constant = _one_sample(wide, batched)
    context = Context(wide, real, constant, RULES)
    for node in context.nodes:
        if node.kind == "call" and node.op == "cast" and node.fx not in constant and not is_function(node):
            _try(context, node)
    for node in wide.outputs:
        _try(context, node)
    return context, batched


def _try(context: Context, node: Node) -> None:
    with suppress(Blocked):
        context.lower(node)


def _is_batched(graph: Graph, node: Node) -> bool:
    if not isinstance(node.value, Tensor):
        return False
    shape = node.value.shape
    return len(shape) > 1 and (not isinstance(shape[0], int) or shape[0] == 1)


def _one_sample(graph: Graph, batched: set[str]) -> tuple[dict[fx.Node, Any], set[fx.Node]]:
    """What each step gives for the first sample of the example, and the steps that depend on no input."""
    examples = iter(pytree.tree_leaves(graph.example))
    real: dict[fx.Node, Any] = {}
    constant: set[fx.Node] = set()
    with torch.no_grad():
        for node in graph.fx.nodes:
            if node.op == "placeholder":
                example = next(examples)
                real[node] = example[:1] if node.name in batched else example
            elif node.op == "get_attr":
                real[node] = graph.tensors[str(node.target)].detach()
                constant.add(node)
            elif node.op == "call_function":
                args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), real.__getitem__)
                real[node] = node.target(*args, **kwargs)  # type: ignore[operator]  # a call
                if not isinstance(real[node], Tensor | list | tuple) or all(
                    each in constant for each in node.all_input_nodes
                ):
                    constant.add(node)
    return real, constant


def _program(context: Context, batched: set[str]) -> Program:
    graph = context.graph
    inputs, doors = [], []
    for node in graph.inputs:
        if node.fx not in context.inputs:
            raise GraphError("nothing that goes out depends on this input", node.name)
        held = context.take(node)
        inputs.append(held.value)
        doors.append(_door(held, node, node.name in batched, context.roundings[held.name]))
    outputs, ways_out = [], []
    for node in graph.outputs:
        held = context.take(node)
        rank = len(held.model)
        first = int(rank > 1 and held.model[0] == 1 and bool(batched))
        order = (
            range(rank) if held.before is not None else (*held.axes, *(a for a in range(rank) if a not in held.axes))
        )
        held = context.arrange(held, [axis for axis in order if axis >= first], node)
        outputs.append(held.value.name)
        ways_out.append(_door(held, node, bool(first), "even"))
    return Program(
        tuple(inputs), tuple(context.operations), tuple(outputs), _structure(graph), tuple(doors), tuple(ways_out)
    )


def _structure(graph: Graph) -> dict[str, object]:
    """How a call's arguments and results are made of tensors: `results` has the number of an output, or a literal in a
    list of one, for each leaf of the result."""
    nodes = [node.fx for node in graph.outputs]
    leaves = pytree.tree_leaves(graph.fx.output_node().args[0])
    results = [nodes.index(leaf) if isinstance(leaf, fx.Node) else [leaf] for leaf in leaves]
    register_structures()
    return {"in_spec": dump_spec(graph.in_spec), "out_spec": dump_spec(graph.out_spec), "results": results}


def _door(held: Held, node: Node, batched: bool, rounding: str) -> Door:
    integer = node.dtype is not None and not node.dtype.is_floating_point
    return Door(tuple(axis - batched for axis in held.axes), batched, rounding, integer)
