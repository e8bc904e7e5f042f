"""The work of each operation of a graph: products by their sizes, elements moved, elements that autograd keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from planish.analysis import Cost, analyze
from planish.analysis.sizes import Sizes
from planish.graph import Graph
from planish.graph.ops import base_name
from planish.training.planning.work import Product

KEEP_OUTPUT = {"relu", "sigmoid", "tanh", "softmax", "_softmax", "log_softmax", "exp", "sqrt", "rsqrt", "max_pool2d"}
"""Operations whose gradient needs what they returned."""
KEEP_NOTHING = {
    "add",
    "sub",
    "neg",
    "mean",
    "sum",
    "cat",
    "stack",
    "embedding",
    "dropout",
    "arange",
    "full",
    "zeros",
    "ones",
}
VIEWS = {
    "view",
    "reshape",
    "transpose",
    "permute",
    "t",
    "unsqueeze",
    "squeeze",
    "expand",
    "select",
    "slice",
    "split",
    "chunk",
}
VIEWS |= {
    "getitem",
    "contiguous",
    "flatten",
    "unflatten",
    "alias",
    "detach",
    "to",
    "clone",
    "split_with_sizes",
    "unbind",
}


@dataclass(frozen=True)
class Operation:
    """One operation, on one sample.

    Attributes:
        node: Of the graph.
        product: Its matrix product, if it is one.
        traffic: Elements that it reads and writes; 0 for a product, whose roofline knows.
        output: Elements that it returns.
    """

    node: fx.Node
    product: Product | None
    traffic: float
    output: float


class Operations:
    """All of a graph's, at the sizes of its example.

    Args:
        graph: The graph; the first axis of its first input is the batch.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sizes = Sizes(graph, {})
        self.samples = self._samples()
        self.cost: Cost = analyze(graph)
        costs = {cost.node: cost for cost in self.cost.nodes}
        self._made: Mapping[fx.Node, Operation] = {
            node: self._operation(node, costs.get(node.name)) for node in graph.fx.nodes if node.op == "call_function"
        }

    def __getitem__(self, node: fx.Node) -> Operation:
        return self._made[node]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of what a node returns, the first of it where it returns several."""
        value = node.meta.get("val")
        while isinstance(value, list | tuple) and value:
            value = value[0]
        return tuple(self.sizes(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()

    def elements(self, node: fx.Node) -> float:
        """Of all that a node returns, for one sample."""
        value = node.meta.get("val")
        tensors = [
            each for each in (value if isinstance(value, list | tuple) else [value]) if isinstance(each, torch.Tensor)
        ]
        return sum(_product(self.sizes(size) for size in each.shape) for each in tensors) / self.samples

    def value(self, node: fx.Node) -> object:
        """What a node returns, with sizes as numbers: a tensor without storage, or a number."""
        found = node.meta.get("val")
        if isinstance(found, torch.SymInt):
            return self.sizes(found)
        if isinstance(found, torch.Tensor):
            shape, strides = (tuple(self.sizes(each) for each in every) for every in (found.shape, found.stride()))
            return torch.empty_strided(shape, strides, dtype=found.dtype, device="meta")
        return found

    def saved(self, nodes: list[fx.Node]) -> Mapping[fx.Node, float]:
        """Elements that autograd keeps for these operations, for one sample: each tensor once, parameters not."""
        kept: dict[fx.Node, float] = {}
        for node in nodes:
            name = base_name(node.target)
            if name in VIEWS or name in KEEP_NOTHING:
                continue
            wanted = [node] if name in KEEP_OUTPUT else [each for each in node.all_input_nodes if self._is_active(each)]
            if name == "scaled_dot_product_attention":
                wanted = [*wanted, node]
            for each in wanted:
                root = _root(each)
                if self._is_active(root):
                    kept[root] = self.elements(root)
        return kept

    def _is_active(self, node: fx.Node) -> bool:
        value = node.meta.get("val")
        is_float = any(
            each.is_floating_point()
            for each in (value if isinstance(value, list | tuple) else [value])
            if isinstance(each, torch.Tensor)
        )
        return node.op in ("call_function", "placeholder") and is_float

    def _samples(self) -> int:
        first = next(
            (self.shape(node) for node in self.graph.fx.nodes if node.op == "placeholder" and self.shape(node)), (1,)
        )
        return first[0]

    def _operation(self, node: fx.Node, cost: object) -> Operation:
        output = self.elements(node)
        if cost is None:
            return Operation(node, None, 0, output)
        work = cost.work  # type: ignore[attr-defined]
        if not work.macs:
            width = next((v.element_size() for v in [node.meta.get("val")] if isinstance(v, torch.Tensor)), 4)
            return Operation(node, None, (work.activation_bytes + work.weight_traffic) / width / self.samples, output)
        return Operation(node, self._product(node, work.macs), 0, output)

    def _product(self, node: fx.Node, macs: float) -> Product:
        """Rows, columns and inner size of one of the products that the operation is, or is like."""
        shape, name = self.shape(node), base_name(node.target)
        sizes = [self.shape(each) for each in node.all_input_nodes]
        weight = next(
            (size for each, size in zip(node.all_input_nodes, sizes, strict=True) if not self._is_active(each)), None
        )
        flops = 2 * macs / self.samples
        if weight and len(weight) > 1 and name != "scaled_dot_product_attention":
            columns = weight[0] if name != "matmul" else weight[-1]
            rows = _product(shape) / columns
            return Product(flops, rows / self.samples, columns, macs / (rows * columns))
        rows, columns = (shape[-2], shape[-1]) if len(shape) > 1 else (1, shape[-1] if shape else 1)
        if name == "scaled_dot_product_attention":
            return Product(flops, rows, sizes[1][-2], columns, core=True)
        return Product(flops, rows, columns, macs / max(1, _product(shape)), core=True)


def _root(node: fx.Node) -> fx.Node:
    """The tensor that a view looks at."""
    while node.op == "call_function" and base_name(node.target) in VIEWS:
        node = node.all_input_nodes[0]
    return node


def _product(sizes: object) -> float:
    total = 1
    for size in sizes:  # type: ignore[attr-defined]
        total *= size
    return total
