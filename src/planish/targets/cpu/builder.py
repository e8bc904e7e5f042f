"""`Builder`: ONNX steps as they are written, with the types and sizes of the graph they come from.

A value of the graph is known by the name of its node. A size (a symbolic integer) is an int64 tensor of one element;
where the sizes are fixed it is a constant.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from planish.formats import Format
from planish.graph import Graph
from planish.graph.branches import COND, bodies_of, source
from planish.graph.evaluate import fold
from planish.graph.shapes import size_text

OPSET = 21  # the first with 4-bit integers and blocked scales
TYPES: dict[torch.dtype, int] = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.int16: TensorProto.INT16,
    torch.int8: TensorProto.INT8,
    torch.uint8: TensorProto.UINT8,
    torch.bool: TensorProto.BOOL,
}


@dataclass(frozen=True)
class Dialect:
    """What an engine takes besides plain ONNX.

    Attributes:
        rounds: Which formats of activations the engine rounds to by itself, so that no step is written for them.
        fused_attention: Whether it has `com.microsoft.MultiHeadAttention`, which keeps the scores in cache.
        signed_products: Whether its integer kernels for products of two activations, as of queries and keys, want
            signed codes; those for weights want unsigned activations.
    """

    rounds: Callable[[Format], bool] = lambda _: False
    fused_attention: bool = False
    signed_products: bool = False


PLAIN = Dialect()


class Builder:
    """Collects ONNX nodes and constants for one graph.

    Attributes:
        graph: The graph being lowered.
        fixed: Sizes that are known: the user's name of a dynamic size -> its value.
        nodes: The ONNX nodes so far.
        constants: The initializers so far, by name.
        dialect: What the engine takes besides plain ONNX.
    """

    def __init__(self, graph: Graph, fixed: Mapping[str, int] | None = None, dialect: Dialect = PLAIN) -> None:
        self.graph = graph
        self.dialect = dialect
        self.fixed = dict(fixed or {})
        self.nodes: list[onnx.NodeProto] = []
        self.constants: MutableMapping[str, TensorProto] = {}
        self.domains: set[str] = set()
        self._values: dict[fx.Node, Any] = {}
        self._folded: dict[fx.Node, torch.Tensor] = {}
        self._constant: set[fx.Node] = set()  # nodes that depend on no input
        self._find_constants(graph.fx)
        self._makers: dict[str, onnx.NodeProto] = {}
        self._made: dict[tuple[Any, ...], str] = {}
        self._used: set[str] = set()
        self.scope = ""

    def _find_constants(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            sources = [source(each, self.graph.calls) for each in node.all_input_nodes]
            if node.op == "get_attr" or (node.op == "call_function" and sources and self._constant.issuperset(sources)):
                self._constant.add(node)
            for body in bodies_of(node, self.graph.branches) if node.target is COND else ():
                self._find_constants(body)

    # Writing ---------------------------------------------------------------------------------------------------------

    def name(self, wish: str) -> str:
        """A name that nothing else has."""
        name, count = wish, 1
        while name in self._used:
            name, count = f"{wish}_{count}", count + 1
        self._used.add(name)
        return name

    def emit(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Write an ONNX node; the name of its output, or a tuple of names where there are several.

        The same operation on the same inputs is written once.
        """
        if (simpler := self._simplified(op, inputs, attributes)) is not None:
            return simpler
        key = (op, domain, inputs, outputs, repr(sorted(attributes.items())))
        if key not in self._made:
            made = [self.name(f"{self.scope}/{op}") for _ in range(outputs)]
            self.nodes.append(helper.make_node(op, inputs, made, name=made[0], domain=domain, **attributes))
            self._makers.update(dict.fromkeys(made, self.nodes[-1]))
            self.domains.add(domain)
            self._made[key] = made  # type: ignore[assignment]
        made = self._made[key]
        return made[0] if outputs == 1 else tuple(made)

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The ONNX node that a value comes from; None for an input or a constant."""
        return self._makers.get(name)

    def _simplified(self, op: str, inputs: tuple[str, ...], attributes: Mapping[str, Any]) -> str | None:
        """An earlier value that equals what would be written: fused attention leaves such pairs behind."""
        before = self.maker(inputs[0]) if op in ("Transpose", "Reshape") else None
        if before is None or before.op_type != op:
            return None
        if op == "Transpose":
            first = helper.get_attribute_value(before.attribute[0])
            order = [first[axis] for axis in attributes["perm"]]
            return before.input[0] if order == sorted(order) else self.emit(op, before.input[0], perm=order)
        wanted = self.constants.get(inputs[1])
        if wanted is None or 0 in numpy_helper.to_array(wanted):  # 0 keeps a size of the value between
            return None
        return self.emit(op, before.input[0], inputs[1])

    @contextmanager
    def body(self) -> Iterator[tuple[list[onnx.NodeProto], Mapping[str, TensorProto]]]:
        """Steps and constants of a branch, which may read all before it, and which nobody else may read. ONNX Runtime
        wants the weights of integer layers in the same branch, so that what several read is stored in each."""
        outer = self.nodes, self._made, self._values, self.constants
        own: dict[str, TensorProto] = {}
        self.nodes, self._made, self._values = [], dict(self._made), dict(self._values)
        self.constants = ChainMap(own, self.constants)
        try:
            yield self.nodes, own
        finally:
            self.nodes, self._made, self._values, self.constants = outer

    def constant(self, array: Any, dtype: Any = None, name: str = "") -> str:
        """An initializer; equal small ones are shared."""
        array = np.ascontiguousarray(np.asarray(array, dtype)).reshape(np.shape(array))
        key = ("const", array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 and not name else None
        if key and key in self._made:
            return self._made[key]
        made = self.name(name or "constant")
        self.constants[made] = numpy_helper.from_array(array, made)
        if key:
            self._made[key] = made
        return made

    def ints(self, *values: int) -> str:
        """A one-dimensional int64 constant."""
        return self.constant(np.array(values, np.int64))

    def raw(self, tensor: TensorProto) -> str:
        """An initializer that numpy has no type for (4-bit integers)."""
        tensor.name = self.name(tensor.name)
        self.constants[tensor.name] = tensor
        return tensor.name

    # Reading the graph -----------------------------------------------------------------------------------------------

    def set(self, node: fx.Node, value: Any) -> None:
        """Say which ONNX value (or tuple of them) a node's value is."""
        self._values[node] = value

    def is_refused(self, node: Any) -> bool:
        """Whether a node has no ONNX form."""
        return isinstance(node, fx.Node) and self._values.get(source(node, self.graph.calls)) == ""

    def known(self, node: Any) -> torch.Tensor | None:
        """The value of a node that depends on no input; None for any other."""
        if not isinstance(node, fx.Node):
            return None
        node = source(node, self.graph.calls)
        return fold(self.graph, node, self._folded) if node in self._constant else None

    def size_of(self, value: Any) -> int | None:
        """A size as an int, if it is known."""
        if isinstance(value, fx.Node):
            value = value.meta.get("val")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, torch.SymInt):
            text = size_text(value, self.graph.symbols)
            if isinstance(text, int):
                return text
            expression = value.node.expr
            known = {
                symbol: self.fixed[self.graph.symbols[str(symbol)]]
                for symbol in expression.free_symbols
                if self.graph.symbols.get(str(symbol)) in self.fixed
            }
            result = expression.subs(known)
            return int(result) if result.is_number else None
        return None

    def shape_of(self, node: fx.Node) -> tuple[int | None, ...]:
        """The sizes of a node's value, None where one may vary."""
        return tuple(self.size_of(size) for size in node.meta["val"].shape)

    def value(self, item: Any, dtype: torch.dtype | None = None) -> str:
        """The ONNX value of a node or a number, converted to `dtype` if it has another type."""
        if isinstance(item, fx.Node):
            item = source(item, self.graph.calls)
            held = item.meta.get("val")
            if not isinstance(held, torch.Tensor):
                return self._scalar(item, dtype or torch.int64)
            have = held.dtype
            if item not in self._values:
                known = self.known(item)
                if known is None:
                    raise KeyError(f"{item.name} has no value yet")
                self._values[item] = self.constant(
                    to_numpy(known), name=str(item.target) if item.op == "get_attr" else ""
                )
            name = self._values[item]
            return name if dtype in (None, have) else self.cast(name, dtype)
        if isinstance(item, bool | int | float):
            dtype = dtype or (
                torch.bool if isinstance(item, bool) else torch.int64 if isinstance(item, int) else torch.float32
            )
            return self.constant(to_numpy(torch.tensor(item, dtype=dtype)))
        raise TypeError(f"{item!r} is no value")

    def cast(self, name: str, dtype: torch.dtype) -> str:
        """A value as another type."""
        return self.emit("Cast", name, to=TYPES[dtype])

    def _scalar(self, node: fx.Node, dtype: torch.dtype) -> str:
        size = self.size_of(node)
        if size is not None:
            return self.constant(to_numpy(torch.tensor(size, dtype=dtype)))
        held = node.meta.get("val")
        have = torch.float32 if isinstance(held, torch.SymFloat) else torch.int64
        name = self.emit("Squeeze", self._values[node])
        return name if dtype == have else self.cast(name, dtype)

    def size(self, item: Any) -> str:
        """A size as an int64 tensor of one element."""
        known = self.size_of(item)
        return self.ints(known) if known is not None else self._values[source(item, self.graph.calls)]

    def sizes(self, items: Sequence[Any]) -> str:
        """A list of sizes as one int64 tensor."""
        known = [self.size_of(item) for item in items]
        if all(size is not None for size in known):
            return self.ints(*known)  # type: ignore[arg-type]
        return self.emit("Concat", *[self.size(item) for item in items], axis=0)

    def shape(self, node: fx.Node) -> str:
        """The shape of a node's value at run time, as int64 tensor."""
        known = self.shape_of(node)
        if None not in known:
            return self.ints(*known)  # type: ignore[arg-type]
        return self.emit("Shape", self.value(node))

    def dimension(self, node: fx.Node, axis: int) -> str:
        """One size of a node's value, as int64 tensor of one element."""
        axis %= node.meta["val"].dim()
        known = self.shape_of(node)[axis]
        return self.ints(known) if known is not None else self.emit("Shape", self.value(node), start=axis, end=axis + 1)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor; bfloat16, which numpy lacks, is widened by the caller's type table instead."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
