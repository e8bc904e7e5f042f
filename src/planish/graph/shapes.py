"""Symbolic sizes under the names that the user gave them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from planish.graph.node import Node

Size = int | str


def shape_of(value: Any, names: Mapping[str, str]) -> tuple[Size, ...] | None:
    """The shape of a (fake) tensor, dynamic sizes in the user's names ("batch", "2*batch"); None if no tensor."""
    return tuple(size_text(size, names) for size in value.shape) if isinstance(value, torch.Tensor) else None


def size_text(size: int | torch.SymInt, names: Mapping[str, str]) -> Size:
    """An int where the size is known, else its expression with torch's symbols (s77) replaced by `names`."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if expression.is_number:
        return int(expression)
    renamed = {symbol: type(symbol)(names[str(symbol)]) for symbol in expression.free_symbols if str(symbol) in names}
    return str(expression.xreplace(renamed))


def hint(size: int | torch.SymInt) -> int:
    """The size that the example inputs had."""
    return size if isinstance(size, int) else int(size.node.hint)


def example(node: Node) -> torch.Tensor:
    """Zeros of the shape that a node gives for the graph's example."""
    return torch.zeros([hint(size) for size in node.value.shape], dtype=node.value.dtype)
