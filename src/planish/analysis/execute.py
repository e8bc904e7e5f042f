"""Running a graph node by node, from any point on, so that what does not change is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from planish.errors import DataError
from planish.graph import Data, Graph, Node

Values = dict[fx.Node, Any]
ItemCall = tuple[tuple[Any, ...], dict[str, Any]]


def calls(data: Data) -> list[ItemCall]:
    """The `(args, kwargs)` of every item of a data set.

    Raises:
        DataError: There is no item, or an item is not `(args, kwargs)` or `(args, kwargs, target)`.
    """
    found: list[ItemCall] = []
    for index, item in enumerate(data):
        match item:
            case (tuple() | list() as args, dict() as kwargs, *_):
                found.append((tuple(args), kwargs))
            case _:
                wrong = f"an item is (args, kwargs) or (args, kwargs, target), not {type(item).__name__}"
                raise DataError(wrong, f"data[{index}]", "[((x,), {}), ...]")
    if not found:
        raise DataError("the data is empty", "data", "give at least one (args, kwargs)")
    return found


class Executor:
    """Runs the nodes of a graph one at a time, in evaluation mode and without gradients.

    What depends on no input (a cast weight, a table of positions) is computed once, when the executor is made.

    Attributes:
        order: The operations that depend on the input, in execution order.
        executed: How many of them have been run so far.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.executed = 0
        self.constants: Values = {}
        order: list[fx.Node] = []
        for node in graph.fx.nodes:
            if node.op == "get_attr":
                name = str(node.target)
                self.constants[node] = graph.branches[name] if name in graph.branches else graph.tensors[name].detach()
            elif node.op == "call_function":
                sources = node.all_input_nodes
                if sources and all(source in self.constants for source in sources):
                    self.constants[node] = self.evaluate(node, self.constants)
                else:
                    order.append(node)
        self.order = tuple(order)
        self.place = {node: index for index, node in enumerate(order)}
        self.executed = 0
        self._dying = self._last_uses()

    def _last_uses(self) -> dict[int, list[fx.Node]]:
        """Position -> the values that nobody reads after it."""
        kept = set(self.graph.fx.output_node().all_input_nodes)
        last: dict[fx.Node, int] = {}
        for index, node in enumerate(self.order):
            last[node] = max(last.get(node, 0), index)
            last |= dict.fromkeys((s for s in node.all_input_nodes if s not in self.constants), index)
        dying: dict[int, list[fx.Node]] = {}
        for node, index in last.items():
            if node not in kept:
                dying.setdefault(index, []).append(node)
        return dying

    def bind(self, call: ItemCall, where: str = "data") -> Values:
        """The values that are known before the first node runs: the inputs of one call.

        Raises:
            DataError: The call has another structure than the graph's example.
        """
        args, kwargs = call
        try:
            flat = fx_pytree.tree_flatten_spec((args, kwargs), self.graph.in_spec)
        except (RuntimeError, KeyError, IndexError, TypeError, ValueError) as error:
            hint = f"the graph takes {', '.join(node.name for node in self.graph.inputs)}"
            raise DataError(f"the inputs have another structure than the example ({error})", where, hint) from error
        return dict(zip((node.fx for node in self.graph.inputs), flat, strict=True))

    def evaluate(self, node: fx.Node, *layers: Mapping[fx.Node, Any], **replaced: Any) -> Any:
        """The value of one node; its arguments are looked up in the layers, the first that has them.

        Args:
            node: The operation.
            layers: Values of its arguments.
            replaced: Values for arguments by position, as `_0=value`, in place of what the node would read.
        """

        def read(source: fx.Node) -> Any:
            for layer in layers:
                if source in layer:
                    return layer[source]
            return self.constants[source]

        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), read)
        args = tuple(replaced.get(f"_{position}", value) for position, value in enumerate(args))
        self.executed += 1
        try:
            with torch.no_grad():
                return node.target(*args, **kwargs)  # type: ignore[operator]  # an operation of a graph is callable
        except (RuntimeError, IndexError, ValueError) as error:
            first_line = str(error).partition("\n")[0]
            where = f"{Node(self.graph, node).path or 'the model'} ({node.name})"
            raise DataError(
                f"the data does not fit the graph: {first_line}", where, "shapes as in the example"
            ) from error

    def advance(
        self, values: Values, start: int, stop: int | None = None, observe: Callable[[fx.Node, Any], None] | None = None
    ) -> None:
        """Run `order[start:stop]`, passing over what `values` has already, and drop values that nobody will read.

        Args:
            values: What is known; results are added.
            start: First position to run.
            stop: First position not to run; None runs to the end.
            observe: Called with each node and its value, before the value may be dropped.
        """
        for index in range(start, len(self.order) if stop is None else stop):
            node = self.order[index]
            if node not in values:
                values[node] = self.evaluate(node, values)
            if observe is not None:
                observe(node, values[node])
            for dead in self._dying.get(index, ()):
                values.pop(dead, None)

    def downstream(self, node: fx.Node) -> list[fx.Node]:
        """The operations whose values depend on that of `node`, in execution order, without itself."""
        reached = {node}
        found: list[fx.Node] = []
        for later in self.order[self.place[node] + 1 :]:
            if not reached.isdisjoint(later.all_input_nodes):
                reached.add(later)
                found.append(later)
        return found

    def complete(self, values: Values, downstream: Sequence[fx.Node]) -> None:
        """Add to `values` all that the `downstream` operations and the output read and that does not depend on them."""
        inside = set(downstream)
        wanted = [s for node in (*downstream, self.graph.fx.output_node()) for s in node.all_input_nodes]
        missing: set[fx.Node] = set()
        while wanted:
            node = wanted.pop()
            if node in missing or node in inside or node in values or node in self.constants or node not in self.place:
                continue
            missing.add(node)
            wanted += node.all_input_nodes
        for node in sorted(missing, key=self.place.__getitem__):
            values[node] = self.evaluate(node, values)

    def replay(self, values: Values, node: fx.Node, value: Any, downstream: Iterable[fx.Node]) -> list[Any]:
        """The graph's flat outputs were `value` the result of `node`; `values` is left as it is."""
        changed: Values = {node: value}
        for later in downstream:
            changed[later] = self.evaluate(later, changed, values)
        return self.outputs(changed, values)

    def outputs(self, *layers: Mapping[fx.Node, Any]) -> list[Any]:
        """The flat outputs, each looked up in the first layer that has it."""

        def read(value: Any) -> Any:
            if not isinstance(value, fx.Node):
                return value
            return next((layer[value] for layer in layers if value in layer), self.constants.get(value))

        return [read(value) for value in pytree.tree_leaves(self.graph.fx.output_node().args[0], is_leaf=_is_leaf)]

    def structured(self, outputs: list[Any]) -> Any:
        """Flat outputs in the model's own structure."""
        return pytree.tree_unflatten(outputs, self.graph.out_spec)


def _is_leaf(value: Any) -> bool:
    return value is None or isinstance(value, fx.Node)


def run(executor: Executor, call: ItemCall) -> list[Any]:
    """The flat outputs of one call."""
    values = executor.bind(call)
    executor.advance(values, 0)
    return executor.outputs(values)
