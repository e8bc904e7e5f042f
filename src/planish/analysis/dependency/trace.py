"""One walk over a graph that finds which axes are the same channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

from planish.analysis.dependency.dims import Dim, freeze, unify
from planish.graph import Graph, Node
from planish.graph.ops import base_name

Axes = tuple[Dim, ...]
"""The axes of a tensor."""
Value = Axes | list[Axes] | None
"""Of an operation's result: a tensor, several, or none."""
_PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061, 1063, 1069, 1087, 1091, 1093, 1097)


@dataclass(frozen=True)
class Product:
    """A sum of products, as an operation computes it.

    Attributes:
        node: The operation.
        loops: Its loops: multiply-accumulates are the product of their sizes.
        batch: Those along which several separate products are computed.
        weighted: Whether a stored tensor is multiplied, and not two activations.
    """

    node: fx.Node
    loops: Axes
    batch: Axes = ()
    weighted: bool = True


@dataclass(frozen=True)
class Call:
    """One operation, its arguments by the names in its schema."""

    trace: Trace
    fx: fx.Node
    arguments: Mapping[str, Any]

    @property
    def where(self) -> str:
        """What a reason says of the place: operation and module path."""
        node = Node(self.trace.graph, self.fx)
        return f"{node.op} in {node.path or 'the model'} ({node.name})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the one tensor that it gives."""
        return self.trace.shape(self.fx.meta["val"])

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def axes(self, name: str) -> Axes:
        """The axes of the tensor given for an argument; none if it is a number or left out."""
        return self.trace.axes(self.arguments.get(name))

    def because(self, what: str) -> str:
        """A reason that names this place."""
        return f"{self.where} {what}"

    def same(self, left: Dim, right: Dim) -> None:
        """Two dimensions meet here."""
        unify(left, right, self.because("cuts a dimension otherwise than other operations"))

    def hold(self, dims: Sequence[Dim], what: str) -> None:
        """No index of these may go."""
        for dim in dims:
            freeze(dim, self.because(what))

    def fresh(self) -> Axes:
        """New axes of the result's shape; those of dynamic size held."""
        return self.trace.fresh(self.fx.meta["val"])


Rule = Callable[[Call], Value]


@dataclass
class Trace:
    """What is known of a graph's axes while it is walked.

    Attributes:
        graph: The graph.
        values: Axes of what each node gives.
        tensors: Axes of each stored tensor by its identity, so that tied names are one.
        products: All products, in execution order.
    """

    graph: Graph
    values: dict[fx.Node, Value] = field(default_factory=dict)
    tensors: dict[int, Axes] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    _symbols: dict[Any, int] = field(default_factory=dict)

    def run(self, rules: Mapping[str, Rule], default: Rule) -> Trace:
        """Walk the graph; an operation without a rule is given to `default`."""
        for node in self.graph.fx.nodes:
            if node.op == "placeholder":
                self.values[node] = self._held(self._new(node.meta.get("val")), f"it is the model's input {node.name}")
            elif node.op == "get_attr":
                self.values[node] = self._stored(node)
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self._held(self.values[source], "the model returns it")
            elif node.op == "call_function":
                self.values[node] = self._ruled(Call(self, node, bound(node)), rules.get(operation(node), default))
        return self

    def _ruled(self, call: Call, rule: Rule) -> Value:
        try:
            return rule(call)
        except KeyError:  # an overload with other arguments than the rule knows
            return self.unknown(call)

    def axes(self, node: Any) -> Axes:
        """The axes of the tensor that a node gives."""
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, tuple) else ()

    def is_stored(self, node: Any) -> bool:
        """Whether a tensor is a stored one, or a part or expression of stored ones only."""
        if not isinstance(node, fx.Node) or node.op == "placeholder":
            return False
        if node.op == "get_attr":
            return True
        if operation(node) in ("index", "index_select"):  # a choice of weights, as experts are
            return self.is_stored(node.args[0])
        return bool(node.all_input_nodes) and all(map(self.is_stored, node.all_input_nodes))

    def shape(self, fake: torch.Tensor) -> tuple[int, ...]:
        """A shape in numbers. A dynamic size is a number that no fixed one will be taken for."""
        return tuple(self._number(size) for size in fake.shape)

    def fresh(self, fake: torch.Tensor) -> Axes:
        """New axes for a tensor; those of dynamic size held."""
        return tuple(self._axis(size) for size in fake.shape)

    def _axis(self, size: int | torch.SymInt) -> Dim:
        number = self._number(size)
        return Dim(number) if is_fixed(size) else Dim(number, frozen="its size is dynamic")

    def _number(self, size: int | torch.SymInt) -> int:
        if is_fixed(size):
            return int(size)
        expression = size.node.expr  # type: ignore[union-attr]
        for symbol in expression.free_symbols:
            # many small factors, as dynamic sizes are split too
            self._symbols.setdefault(symbol, 5040 * _PRIMES[len(self._symbols) % len(_PRIMES)])
        return int(expression.subs(self._symbols))

    def _new(self, value: Any) -> Value:
        if isinstance(value, torch.Tensor):
            return self.fresh(value)
        if isinstance(value, list | tuple):
            return [axes if isinstance(axes := self._new(each), tuple) else () for each in value]
        return None

    def _stored(self, node: fx.Node) -> Value:
        tensor = self.graph.tensors.get(str(node.target))
        if tensor is None:  # the body of a branch
            return None
        return self.tensors.setdefault(id(tensor), tuple(Dim(size) for size in tensor.shape))

    def _held(self, value: Value, why: str) -> Value:
        for axes in value if isinstance(value, list) else [value or ()]:
            for dim in axes:
                freeze(dim, why)
        return value

    def unknown(self, call: Call) -> Value:
        """The rule of operations without one: hold all that they read and give."""
        why = call.because("has no rule")
        for source in call.fx.all_input_nodes:
            self._held(self.values.get(source), why)
        return self._held(self._new(call.fx.meta.get("val")), why)


def is_fixed(size: int | torch.SymInt) -> bool:
    """Whether a size is a number."""
    return isinstance(size, int) or bool(size.node.expr.is_number)


def operation(node: fx.Node) -> str:
    """Base name of an operation; one that writes into its operand computes the same."""
    name = base_name(node.target)
    return name.rstrip("_") if not name.startswith("__") else name


def bound(node: fx.Node) -> dict[str, Any]:
    """All arguments of a call by the names in its schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(place): value for place, value in enumerate(node.args)}
    found: dict[str, Any] = {}
    for place, argument in enumerate(schema.arguments):
        given = not argument.kwarg_only and place < len(node.args)
        value = node.args[place] if given else node.kwargs.get(argument.name, argument.default_value)
        found[argument.name] = cast("Any", value)
    return found
