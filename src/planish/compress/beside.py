"""A thin product beside a weight: `E + b @ a`, in the shape and orientation that the weight is stored in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from planish.graph import Editor, Node

aten = torch.ops.aten


def sizes(layer: Node, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of `b` and `a` for a layer's weight as a matrix: a convolution's is `(out, in * kernel)`."""
    assert layer.weight is not None
    shape = [int(size) for size in layer.weight.value.shape]
    return (shape[0], rank), (rank, math.prod(shape[1:]))


def by_weight(layers: Iterable[Node]) -> list[tuple[Node, ...]]:
    """Layers that read one weight, together; in execution order."""
    groups: dict[Node, list[Node]] = {}
    for layer in layers:
        assert layer.weight is not None
        groups.setdefault(layer.weight, []).append(layer)
    return [tuple(group) for group in groups.values()]


def add_product(edit: Editor, layers: Sequence[Node], b: Node, a: Node, scale: float = 1.0) -> Node:
    """Let layers of one weight read `weight + scale * b @ a` instead; returns the sum."""
    first = layers[0]
    weight = edit.node(first.name).weight
    assert weight is not None
    product = edit.call(aten.matmul.default, b, a, before=first)
    if product.shape != weight.shape:
        product = edit.call(aten.view.default, product, list(weight.value.shape), before=first)
    if scale != 1:
        product = edit.call(aten.mul.Tensor, product, scale, before=first)
    total = edit.call(aten.add.Tensor, weight, product, before=first)
    for layer in layers:
        edit.replace_input(edit.node(layer.name), weight, total)
    return total
