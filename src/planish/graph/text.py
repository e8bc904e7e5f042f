"""A graph as text: one operation a line; name, operation, shape, number type or format, module path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planish.graph.node import Node

if TYPE_CHECKING:
    from planish.graph.graph import Graph


def to_text(graph: Graph) -> str:
    """The graph in columns, each as wide as its widest entry."""
    rows = [_row(node) for node in (*graph.inputs, *graph.nodes)]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    returned = ", ".join(node.name for node in graph.outputs)
    parameters = sum(graph.tensors[name].numel() for name in graph.parameter_names)
    return "\n".join([f"graph: {len(graph.nodes)} operations, {parameters:,} parameters", *lines, f"return {returned}"])


def _row(node: Node) -> tuple[str, str, str, str, str]:
    shape = "×".join(map(str, node.shape)) if node.shape else "scalar" if node.shape == () else _symbol(node.value)
    kind = str(node.format) if node.format else str(node.dtype or "").removeprefix("torch.")
    inputs = node.inputs[:3] if node.op == "cond" else node.inputs  # what its branches read stands in their own rows
    reads = ", ".join(_source(source, node.path) for source in inputs)
    return node.name, f"{node.op}({reads})" if node.kind == "call" else node.op, shape, kind, node.path


def _source(source: Node, path: str) -> str:
    """What is read: another node's name, or a tensor's own, relative to the module that reads it (".weight")."""
    if source.kind != "tensor":
        return source.name
    name = str(source.target)
    return name.removeprefix(path) if path and name.startswith(f"{path}.") else name


def _symbol(value: Any) -> str:
    return (
        f"({len(value)} values)"
        if isinstance(value, list | tuple)
        else type(value).__name__.lower()
        if value is not None
        else ""
    )
