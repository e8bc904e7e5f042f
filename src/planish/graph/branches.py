"""Bodies of `torch.cond`. Each takes all that it reads as operands of the call, so that a parameter in a branch belongs
to the graph as any other does.

What looks at a graph sees through the operands: a layer in a branch reads the weight itself, not a parameter of the
body.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import fx

from planish.errors import GraphError
from planish.graph.copying import copy_graph

Bodies = Mapping[str, fx.GraphModule]
Calls = Mapping[fx.Graph, fx.Node]
Module = TypeVar("Module", bound=fx.GraphModule)
COND = torch.ops.higher_order.cond


def bodies_of(call: fx.Node, bodies: Bodies) -> list[fx.Graph]:
    """What a `torch.cond` may run."""
    return [bodies[str(name.target)].graph for name in call.args[1:3]]  # type: ignore[union-attr]


def calls_of(graph: fx.Graph, bodies: Bodies) -> dict[fx.Graph, fx.Node]:
    """Each body -> the call that runs it."""
    graphs = [graph, *(body.graph for body in bodies.values())]
    found = [node for each in graphs for node in each.nodes if node.target is COND]
    return {body: call for call in found for body in bodies_of(call, bodies)}


def steps_of(graph: fx.Graph, bodies: Bodies) -> Iterator[fx.Node]:
    """All operations in execution order, those of a branch before the call that runs it."""
    for node in graph.nodes:
        if node.target is COND:
            for body in bodies_of(node, bodies):
                yield from steps_of(body, bodies)
        if node.op == "call_function":
            yield node


def source(node: fx.Node, calls: Calls) -> fx.Node:
    """The value that a body's placeholder stands for, outside of all bodies that only pass it on."""
    while node.op == "placeholder" and node.graph in calls:
        value = operands(calls[node.graph])[_placeholders(node.graph).index(node)]
        if not isinstance(value, fx.Node):
            break
        node = value
    return node


def readers(node: fx.Node, calls: Calls, bodies: Bodies) -> list[fx.Node]:
    """The nodes that read a value, in bodies too; of a body's result, the call."""
    found: dict[fx.Node, None] = {}
    for user in node.users:
        if user.target is COND and node in operands(user):
            place = operands(user).index(node)
            inner = [_placeholders(body)[place] for body in bodies_of(user, bodies)]
            found |= dict.fromkeys(reader for each in inner for reader in readers(each, calls, bodies))
        if user.op == "output" and user.graph in calls:
            found[calls[user.graph]] = None
        elif user.target is not COND or node in user.args[:1]:
            found[user] = None
    return list(found)


def operands(call: fx.Node) -> tuple[fx.Node, ...]:
    """What a `torch.cond` passes to its bodies."""
    return tuple(call.args[3])  # type: ignore[arg-type]


def bring(node: fx.Node, into: fx.Graph, calls: Calls, bodies: Bodies) -> fx.Node:
    """What a value from outside is called in a body; it becomes an operand of the calls around it if it is none yet.

    Raises:
        GraphError: The value is computed in another branch.
    """
    if node.graph is into:
        return node
    if into not in calls:
        raise GraphError(f"{node.name} is computed in a branch, and can only be read there", node.name)
    call = calls[into]
    outer = bring(node, call.graph, calls, bodies)
    if outer not in operands(call):
        for body in bodies_of(call, bodies):
            last = _placeholders(body)[-1:] or [None]
            with body.inserting_after(last[0]) if last[0] else body.inserting_before(next(iter(body.nodes))):
                body.placeholder(outer.name).meta = {"val": outer.meta.get("val")}
        call.args = (*call.args[:3], (*operands(call), outer))
    return _placeholders(into)[operands(call).index(outer)]


def enclosing(node: fx.Node, scope: fx.Graph, calls: Calls) -> fx.Node:
    """The node of `scope` in which a node stands: itself, or the call around it."""
    while node.graph is not scope:
        node = calls[node.graph]
    return node


def depth(graph: fx.Graph, calls: Calls) -> int:
    """How many branches a body stands in."""
    return 1 + depth(calls[graph].graph, calls) if graph in calls else 0


def prune(graph: fx.Graph, bodies: Bodies) -> None:
    """Remove what nobody reads: steps of bodies, then operands."""
    for call in [node for node in graph.nodes if node.target is COND]:
        inner = bodies_of(call, bodies)
        for body in inner:
            prune(body, bodies)
        places = [_placeholders(body) for body in inner]
        unread = {i for i in range(len(operands(call))) if not any(each[i].users for each in places)}
        for body, each in zip(inner, places, strict=True):
            for index in unread:
                body.erase_node(each[index])
        kept = tuple(value for index, value in enumerate(operands(call)) if index not in unread)
        call.args = (*call.args[:3], kept)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.is_impure(impure_random=False))


def copied(bodies: Bodies, kind: type[Module]) -> dict[str, Module]:
    """The same bodies with graphs of their own."""
    return assembled({name: copy_graph(body.graph) for name, body in bodies.items()}, kind)


def assembled(graphs: Mapping[str, fx.Graph], kind: type[Module]) -> dict[str, Module]:
    """Bodies as modules that run; one that holds further branches has them as its submodules."""
    made: dict[str, Module] = {}

    def make(name: str) -> Module:
        if name not in made:
            inner = {str(node.target) for node in graphs[name].nodes if node.op == "get_attr"}
            made[name] = kind({each: make(each) for each in inner}, graphs[name])  # type: ignore[arg-type]
        return made[name]

    return {name: make(name) for name in graphs}


def _placeholders(body: fx.Graph) -> list[fx.Node]:
    return [node for node in body.nodes if node.op == "placeholder"]
