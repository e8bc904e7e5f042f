"""Items of data in batches of a chosen size, as far as the graph's batch may vary."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planish.errors import DataError
from planish.graph import Data, Graph

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def read(data: Data | None, who: str) -> list[Inputs]:
    """The inputs of all items, targets left out.

    Raises:
        DataError: There is none, or an item has another form.
    """
    items: list[Inputs] = []
    for place, item in enumerate(() if data is None else data):
        whole = isinstance(item, tuple | list) and len(item) in (2, 3)
        if not (whole and isinstance(item[0], tuple | list) and isinstance(item[1], dict)):
            raise DataError(
                f"an item of data is (args, kwargs), not a {type(item).__name__}", f"data[{place}]", "((x,), {})"
            )
        items.append((tuple(item[0]), dict(item[1])))
    if not items:
        raise DataError(f"{who} learns from data, and there is none", hint="recipe(graph, data=...)")
    return items


def regroup(graph: Graph, items: list[Inputs], size: int) -> list[Inputs]:
    """The same rows in items of `size` rows, those of one length together; items of a fixed batch stay as they are.

    Rows are joined where every tensor of an item has the same first axis, which the graph lets vary, and where all else
    in the items is equal.
    """
    if not _varies(graph):
        return items
    alike: dict[Hashable, list[list[Tensor]]] = {}
    specs: dict[Hashable, pytree.TreeSpec] = {}
    for item in items:
        leaves, spec = pytree.tree_flatten(item)
        if not all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves) or len({len(x) for x in leaves}) != 1:
            return items
        key = (str(spec), *((tuple(leaf.shape[1:]), leaf.dtype) for leaf in leaves))
        alike.setdefault(key, []).append(leaves)
        specs[key] = spec
    return [
        pytree.tree_unflatten(list(parts), specs[key])
        for key, rows in alike.items()
        for parts in zip(*(torch.cat(column).split(size) for column in zip(*rows, strict=True)), strict=True)
    ]


def _varies(graph: Graph) -> bool:
    """Whether the first axis of every input is one and the same dynamic size."""
    first = {node.shape[0] if node.shape else None for node in graph.inputs}
    return len(first) == 1 and isinstance(next(iter(first)), str)
