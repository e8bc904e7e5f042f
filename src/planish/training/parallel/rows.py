"""How an item of data is dealt out: each device, and each microbatch, has as many of its rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from planish.errors import DataError, OptionError
from planish.graph import Graph
from planish.training.engine import Item


def parts(item: Item, count: int, graph: Graph | None = None) -> list[Item]:
    """The item `(args, kwargs, target)` in `count` parts of equal rows.

    Rows are those of the target: tensors whose first axis is as long are divided, and the others belong to every part.
    With a graph, only inputs whose first axis is dynamic are divided, since the others may be as long by chance.

    Raises:
        DataError: The rows cannot be divided so.
        OptionError: No input of the graph has a dynamic first axis.
    """
    if count == 1:
        return [item]
    rows = _rows(item)
    if rows is None:
        raise DataError("the target has no rows, so a batch cannot be dealt out", "data", "a tensor (batch, ...)")
    if rows % count:
        what = f"a batch of {rows} rows has no {count} equal parts"
        raise DataError(what, "data", f"batches of {-(-rows // count) * count} rows")
    own = check_rows(graph) if graph is not None else None
    size = rows // count
    return [_cut(item, slice(place * size, (place + 1) * size), rows, own, graph) for place in range(count)]


def _rows(item: Item) -> int | None:
    leaves = [leaf for leaf in pytree.tree_leaves(item[2]) if isinstance(leaf, Tensor) and leaf.dim()]
    return len(leaves[0]) if leaves else None


def check_rows(graph: Graph) -> set[int]:
    """The places of the inputs whose first axis is dynamic.

    Raises:
        OptionError: There are none.
    """
    found = {place for place, node in enumerate(graph.inputs) if node.shape and isinstance(node.shape[0], str)}
    if not found:
        hint = 'capture(..., dynamic={"x": {0: "batch"}})'
        raise OptionError("the graph is captured for one batch size, so parts of a batch do not fit it", "plan", hint)
    return found


def _cut(item: Item, chosen: slice, rows: int, own: Collection[int] | None, graph: Graph | None) -> Item:
    args, kwargs, target = item

    def cut(leaf: Any) -> Any:
        return leaf[chosen] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == rows else leaf

    if own is None or graph is None:
        args, kwargs = pytree.tree_map(cut, (args, kwargs))
    else:
        leaves = graph.flat_inputs(args, kwargs)
        kept = [cut(leaf) if place in own else leaf for place, leaf in enumerate(leaves)]
        args, kwargs = pytree.tree_unflatten(kept, graph.in_spec)
    return (args, kwargs, pytree.tree_map(cut, target))
