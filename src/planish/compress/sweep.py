"""One pass over a graph with all of the calibration data, operation by operation instead of batch by batch.

At each operation a pass sees what came in and may still change the weights that the operation reads, so that later
operations are calibrated on what they will really get. The whole costs two runs of the model, however many operations
are changed. Each value is kept twice: as the graph computes it, and as it would be were no `planish::cast` there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from planish.errors import DataError, OptionError
from planish.graph import Data, Graph, Node
from planish.graph.ops import base_name


@dataclass(frozen=True)
class Batch:
    """What an operation gets of one item of data: its value as it is, and as it would be without casts."""

    actual: Any
    exact: Any


Read = Callable[[Node], list[Batch]]


def check_items(data: Data | None, who: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The calibration items as `(args, kwargs)`.

    Raises:
        DataError: There is none, an item has another form, or a tensor holds NaN or an infinity.
    """
    items: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for place, item in enumerate(() if data is None else data):
        whole = isinstance(item, tuple | list) and len(item) in (2, 3)
        if not (whole and isinstance(item[0], tuple | list) and isinstance(item[1], dict)):
            raise DataError(
                f"an item of data is (args, kwargs), not a {type(item).__name__}", f"data[{place}]", "((x,), {})"
            )
        for leaf in pytree.tree_leaves((tuple(item[0]), item[1])):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
                raise DataError(
                    "a tensor of the calibration data holds NaN or infinity", f"data[{place}]", "drop the item"
                )
        items.append((tuple(item[0]), dict(item[1])))
    if not items:
        raise DataError(f"{who} looks at activations, and there is no calibration data", hint="recipe(graph, data=...)")
    return items


def sweep(
    graph: Graph,
    data: Data | None,
    visit: Callable[[Node, Read], None],
    wanted: Iterable[str],
    who: str,
    casts: bool = True,
) -> None:
    """Run the graph over the data, calling `visit(node, read)` just before each wanted operation.

    Args:
        graph: The graph; `visit` may replace entries of `graph.tensors`.
        data: Calibration data.
        visit: Gets the node, and a function that gives one `Batch` per item of data for each node that it reads.
        wanted: Names of the nodes to visit; the run ends after the last one.
        who: The name of the pass, for errors.
        casts: False computes exact values only (`actual` and `exact` are then the same object).
    """
    items = [graph.flat_inputs(*item) for item in check_items(data, who)]
    left = set(wanted)
    order = list(graph.fx.nodes)
    last = {source: node for node in order for source in node.all_input_nodes}
    if inside := sorted(left - {node.name for node in order}):
        raise OptionError(f"{who} cannot calibrate in a branch of torch.cond: {', '.join(inside)}", "where")
    values = _Values(graph, len(items))
    inputs = iter(range(len(items[0])))
    with torch.no_grad():
        for node in order:
            if not left:
                return
            if node.op == "placeholder":
                place = next(inputs)
                values.known[node] = [Batch(item[place], item[place]) for item in items]
            elif node.op == "call_function" and not values.is_constant(node):
                if node.name in left:
                    left.discard(node.name)
                    visit(Node(graph, node), lambda source: values(source.fx))
                sources = [values(source) for source in node.all_input_nodes]
                values.known[node] = [_run(node, [source[i] for source in sources], casts) for i in range(len(items))]
            for source in [*node.all_input_nodes, node]:
                if last.get(source, node) is node:
                    values.known.pop(source, None)


class _Values:
    """The values of nodes that are still needed. Weights and their expressions are computed whenever they are read,
    from the tensors as they are then; their exact values come from the tensors as they were at the start."""

    def __init__(self, graph: Graph, count: int) -> None:
        self.graph, self.count, self.original = graph, count, dict(graph.tensors)
        self.known: dict[fx.Node, list[Batch]] = {}
        self._constant: dict[fx.Node, bool] = {}

    def is_constant(self, node: fx.Node) -> bool:
        """Whether a node depends on tensors of the graph only."""
        if node not in self._constant:
            sources = node.all_input_nodes
            called = node.op == "call_function" and bool(sources) and all(map(self.is_constant, sources))
            self._constant[node] = node.op == "get_attr" or called
        return self._constant[node]

    def __call__(self, node: fx.Node) -> list[Batch]:
        return [self._constant_value(node)] * self.count if self.is_constant(node) else self.known[node]

    def _constant_value(self, node: fx.Node) -> Batch:
        if node.op == "get_attr":
            name = str(node.target)
            if name in self.graph.branches:
                return Batch(self.graph.branches[name], self.graph.branches[name])
            return Batch(self.graph.tensors[name], self.original[name])
        return _run(node, [self._constant_value(source) for source in node.all_input_nodes], casts=True)


def _run(node: fx.Node, sources: list[Batch], casts: bool) -> Batch:
    places = dict(zip(node.all_input_nodes, sources, strict=True))
    exact = _call(node, {source: batch.exact for source, batch in places.items()}, casts=False)
    if not casts or (base_name(node.target) != "cast" and all(batch.actual is batch.exact for batch in sources)):
        return Batch(exact, exact)
    return Batch(_call(node, {source: batch.actual for source, batch in places.items()}, casts=True), exact)


def _call(node: fx.Node, values: dict[fx.Node, Any], casts: bool) -> Any:
    if not casts and base_name(node.target) == "cast":
        return values[node.all_input_nodes[0]]
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    return node.target(*args, **kwargs)  # type: ignore[operator]
