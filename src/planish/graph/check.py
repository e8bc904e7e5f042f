"""What every graph is held to, after every pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planish.errors import GraphError, PlanishError
from planish.graph.node import Node
from planish.graph.operators import is_allowed

if TYPE_CHECKING:
    from planish.graph.graph import Graph


def verify(graph: Graph) -> None:
    """Check that a graph is well formed.

    It is topologically sorted, every name is unique, every tensor it reads exists, every call is on the allow-list and
    knows its shape, and every cast has the scales that its format asks for.

    Raises:
        GraphError: It is not; names the node and its module path.
    """
    bodies = [body.graph for body in graph.branches.values()]
    for scope in (graph.fx, *bodies):
        try:
            scope.lint()
        except RuntimeError as error:
            raise GraphError(f"the graph is malformed: {error}") from error
        if [node.op for node in scope.nodes][-1:] != ["output"]:
            raise GraphError("the graph returns nothing")
    if len(graph.inputs) != graph.in_spec.num_leaves:
        raise GraphError("the graph does not take its inputs")
    names = [node.name for node in graph.nodes]
    if len(set(names)) < len(names):
        raise GraphError("two operations of the graph have one name")
    for fx_node in (node for scope in (graph.fx, *bodies) for node in scope.nodes):
        node = Node(graph, fx_node)
        where = f"{node.path or 'the model'} ({node.name})"
        if fx_node.op == "get_attr" and str(fx_node.target) not in {*graph.tensors, *graph.branches}:
            raise GraphError(f"the tensor {fx_node.target!r} does not exist", where)
        if fx_node.op == "call_function":
            if not is_allowed(fx_node.target):
                raise GraphError(f"{fx_node.target} is not an operation that a graph may hold", where)
            if "val" not in fx_node.meta and fx_node.users:
                raise GraphError("an operation has no shape", where)
            if node.op == "cast":
                _verify_cast(node, where)
        elif fx_node.op not in ("get_attr", "placeholder", "output"):
            raise GraphError(f"a graph holds operations and tensors, not {fx_node.op}", where)


def _verify_cast(node: Node, where: str) -> None:
    try:
        fmt = node.format
    except PlanishError as error:
        raise GraphError(f"a cast has a format that cannot be read: {error.what}", where) from error
    assert fmt is not None
    given = node.args[1]
    expected = () if fmt.is_dynamic else fmt.levels
    if len(given) != len(expected):
        names = ", ".join(name for name, _ in expected) or "none"
        raise GraphError(f"{fmt} takes {len(expected)} parameters ({names}), not {len(given)}", where)
