"""Walks a graph once and gives each operation its work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import fx

from planish.analysis.rules import Arithmetic, Array, Call, arithmetic, is_view
from planish.analysis.sizes import Sizes
from planish.analysis.work import Kind, NodeCost, Work
from planish.formats import Format, Int
from planish.graph import Graph, Node

_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that is known before the graph runs, as a file would keep it.

    Attributes:
        key: Equal for equal expressions over equal tensors, so that a tied weight counts once.
        bytes: In its format, packed, with its scales.
        names: The tensors of the graph that it is made of.
    """

    key: int
    bytes: float
    names: frozenset[str]


class Meter:
    """Measures one graph at given sizes."""

    def __init__(self, graph: Graph, sizes: Sizes) -> None:
        self._graph, self._sizes = graph, sizes
        self._parameters = graph.parameter_names
        self._seen: set[int] = set()
        self._counted: set[str] = set()

    def run(self) -> tuple[NodeCost, ...]:
        """The cost of every operation, in execution order."""
        return tuple(self._block(self._graph.fx, {}, {}, "", ""))

    def _block(
        self, graph: fx.Graph, stored: dict[fx.Node, Stored], arrays: dict[fx.Node, Any], prefix: str, path: str
    ) -> list[NodeCost]:
        """The operations of a graph or of a branch. `stored` and `arrays` hold what is known of its placeholders."""
        costs: list[NodeCost] = []
        for node in graph.nodes:
            if node.op == "get_attr" and (tensor := self._graph.tensors.get(str(node.target))) is not None:
                size = tensor.numel() * tensor.element_size()
                stored[node] = Stored(hash(tensor.data_ptr() or node.target), size, frozenset({str(node.target)}))
            if node.op in ("get_attr", "placeholder"):
                arrays.setdefault(node, self._outline(node.meta.get("val")))
            elif node.op == "call_function":
                costs += self._call(Node(self._graph, node), stored, arrays, prefix, path)
        return costs

    def _call(
        self, node: Node, stored: dict[fx.Node, Stored], arrays: dict[fx.Node, Any], prefix: str, path: str
    ) -> list[NodeCost]:
        sources = node.fx.all_input_nodes
        if node.op == "cond":
            return self._costlier_branch(node, stored, arrays, prefix, path)
        form = node.format
        arrays[node.fx] = self._result(node, form, arrays)
        if sources and all(source in stored for source in sources):
            stored[node.fx] = self._constant(node, form, stored, arrays[node.fx])
            return [self._cost(node, "constant", "f32", Work(), prefix, path)]
        call = _bind(node.fx, arrays)
        found = arithmetic(call)
        weights = {stored[source].key: stored[source] for source in sources if source in stored}
        weight_traffic, activation_bytes = _traffic(node.fx, call, found, stored, arrays)
        new = [weight for key, weight in weights.items() if found.kind != "free" and key not in self._seen]
        self._seen.update(weight.key for weight in new)
        names = frozenset().union(*(weight.names for weight in new)) & self._parameters - self._counted
        self._counted |= names
        work = Work(
            macs=found.macs,
            flops=found.flops,
            parameters=sum(self._graph.tensors[name].numel() for name in names),
            weight_bytes=sum(weight.bytes for weight in new),
            weight_traffic=weight_traffic,
            activation_bytes=activation_bytes,
        )
        return [self._cost(node, found.kind, _compute(call, found), work, prefix, path)]

    def _cost(self, node: Node, kind: Kind, compute: str, work: Work, prefix: str, path: str) -> NodeCost:
        return NodeCost(prefix + node.name, node.op, node.path or path, node.module_type, kind, compute, work)

    def _costlier_branch(
        self, node: Node, stored: dict[fx.Node, Stored], arrays: dict[fx.Node, Any], prefix: str, path: str
    ) -> list[NodeCost]:
        """The branch of a `torch.cond` that does more, and the storage of both: which one runs is not known."""
        arrays[node.fx] = self._outline(node.value)
        arguments: tuple[Any, ...] = node.fx.args
        _, *names, operands = arguments
        bodies: list[list[NodeCost]] = []
        for name in names:
            body = self._graph.branches[str(name.target)].graph
            inner = [n for n in body.nodes if n.op == "placeholder"]
            pairs = [
                (place, operand) for place, operand in zip(inner, operands, strict=True) if isinstance(operand, fx.Node)
            ]
            known = {place: stored[operand] for place, operand in pairs if operand in stored}
            shapes = {place: arrays[operand] for place, operand in pairs}
            where = f"{prefix}{node.name}.{name.name}."
            bodies.append(self._block(body, known, shapes, where, node.path or path))
        totals = [Work.sum(cost.work for cost in body) for body in bodies]
        chosen = max(range(len(bodies)), key=lambda i: (totals[i].flops, totals[i].bytes))
        idle = [total for index, total in enumerate(totals) if index != chosen]
        held = Work(parameters=sum(w.parameters for w in idle), weight_bytes=sum(w.weight_bytes for w in idle))
        return [self._cost(node, "free", "f32", held, prefix, path), *bodies[chosen]]

    def _outline(self, value: Any, width: float | None = None, kind: str | None = None) -> Any:
        """A fake value as the rules see it: each tensor an `Array`, each symbolic size a number."""
        if isinstance(value, list | tuple):
            return [self._outline(item, width, kind) for item in value]
        if isinstance(value, torch.SymInt):
            return self._sizes(value)
        if not isinstance(value, torch.Tensor):
            return value
        shape = tuple(self._sizes(size) for size in value.shape)
        strides = tuple(self._sizes(stride) for stride in value.stride())
        distinct = 1
        for size, stride in zip(shape, strides, strict=True):
            distinct *= size if stride else 1
        default = "bf16" if value.dtype in _HALF else "f32"
        return Array(shape, width or value.element_size(), _is_contiguous(shape, strides), distinct, kind or default)

    def _result(self, node: Node, form: Format | None, arrays: Mapping[fx.Node, Any]) -> Any:
        """What a call returns. A cast is stored in its format, and so is a view of a cast of unchanged type."""
        if form is not None:
            array = self._outline(node.value)
            whole = form.element
            kind = "int8" if isinstance(whole, Int) and whole.bits <= 8 else array.kind
            return Array(array.shape, form.nbytes(array.shape) / max(1, array.size), True, array.size, kind)
        first = next((arrays[source] for source in node.fx.all_input_nodes), None)
        if isinstance(first, Array) and is_view(node.op) and node.dtype == node.inputs[0].dtype:
            return self._outline(node.value, first.width, first.kind)
        return self._outline(node.value)

    def _constant(self, node: Node, form: Format | None, stored: Mapping[fx.Node, Stored], array: Any) -> Stored:
        """Whichever is smaller: the parts that the value is computed from, or the value itself."""
        parts = {stored[source].key: stored[source] for source in node.fx.all_input_nodes}
        names = frozenset().union(*(part.names for part in parts.values()))
        dense = sum(
            a.distinct * a.width for a in (array if isinstance(array, list) else [array]) if isinstance(a, Array)
        )
        whole = [part for part in parts.values() if part.bytes == dense]
        if len(parts) == 1 and whole and form is None:  # a view, or as good as one
            return whole[0]
        key = hash((str(node.target), str(fx.map_arg((node.fx.args, dict(node.fx.kwargs)), lambda n: stored[n].key))))
        return Stored(key, dense if form else min(dense, sum(part.bytes for part in parts.values())), names)


@lru_cache(maxsize=4096)
def _argument_names(target: torch._ops.OpOverload) -> tuple[tuple[str, Any], ...]:
    return tuple((argument.name, argument.default_value) for argument in target._schema.arguments)


def _bind(node: fx.Node, arrays: Mapping[fx.Node, Any]) -> Call:
    """The call with arguments under their names and every tensor as an `Array`."""
    value = arrays[node]
    outputs = tuple(a for a in (value if isinstance(value, list) else [value]) if isinstance(a, Array))
    if not isinstance(node.target, torch._ops.OpOverload):
        return Call("getitem", {}, outputs)  # arithmetic on sizes, or one item of a result: free
    names = _argument_names(node.target)
    arguments = dict(names)
    arguments.update(zip((name for name, _ in names), node.args, strict=False))
    arguments.update(node.kwargs)
    op = node.target._schema.name.partition("::")[2]
    return Call(op, {name: _place(value, arrays) for name, value in arguments.items()}, outputs)


def _place(value: Any, arrays: Mapping[fx.Node, Any]) -> Any:
    if isinstance(value, fx.Node):
        return arrays[value]
    if isinstance(value, list | tuple):
        return [_place(item, arrays) for item in value]
    return value


def _traffic(
    node: fx.Node, call: Call, found: Arithmetic, stored: Mapping[fx.Node, Stored], arrays: Mapping[fx.Node, Any]
) -> tuple[float, float]:
    """Bytes of constants and of activations that the call moves."""
    sources = [(source, arrays[source]) for source in node.all_input_nodes]
    written = sum(array.bytes for array in call.outputs)
    if found.kind == "free":
        return 0, 0
    if found.kind == "relayout":
        moved = call.first
        if all(out.width == moved.width and (moved.contiguous or not out.contiguous) for out in call.outputs):
            return 0, 0
    constant = activation = 0.0
    for source, value in sources:
        flat = value if isinstance(value, list) else [value]
        read = sum(array.bytes for array in flat if isinstance(array, Array))
        if found.kind == "gather" and value is call.first:
            read = call.out.size * call.first.width
        elif source in stored:
            read = min(read, stored[source].bytes) if found.kind != "relayout" else read
        if source in stored:
            constant += read
        else:
            activation += read
    return constant, activation + written


def _compute(call: Call, found: Arithmetic) -> str:
    """What the multiply-accumulates run on: the wider of their two operands decides."""
    kinds = [array.kind for array in call.arrays[:2]]
    if not found.macs:
        return "bf16" if kinds and all(kind == "bf16" for kind in kinds) else "f32"
    return next((kind for kind in ("f32", "bf16", "int8") if kind in kinds), "f32")


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
