"""Data as rows that can be dealt out, and a client's rows as batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planish.errors import DataError
from planish.training.federated.partition import Owner

Item = tuple[Any, ...]


class Rows:
    """Items `(args, kwargs, target)` taken apart into rows along the first axis of all their tensors.

    Args:
        data: Read once. Items whose tensors have no common first axis, or hold something besides tensors, are one row
            each.

    Attributes:
        targets: One a row: labels as plain numbers where targets are whole numbers, else None.

    Raises:
        DataError: There is no data, or an item without target.
    """

    def __init__(self, data: Iterable[Item]) -> None:
        items = list(data)
        if not items:
            raise DataError("there is no data to train on", "data", "yield at least one item")
        for place, item in enumerate(items):
            if not isinstance(item, tuple | list) or len(item) != 3:
                raise DataError("an item to train on is (args, kwargs, target)", f"data[{place}]", "((x,), {}, y)")
        given = [(tuple(args), dict(kwargs), target) for args, kwargs, target in items]
        columns = _columns(given)
        self._items: list[Item] = given
        self._columns, self._spec = columns if columns else (None, None)
        self.targets = self._labels()

    def __len__(self) -> int:
        return len(self._items) if self._columns is None else len(self._columns[0])

    def row(self, place: int) -> Item:
        """`(args, kwargs, target)` of one row, its tensors with a first axis of 1."""
        return self.batches(np.array([place]), 1)[0]

    def owners(self, owner: Owner) -> list[Hashable]:
        """Whose each row is."""
        return [owner(self.row(place)) for place in range(len(self))]

    def batches(self, rows: np.ndarray, size: int) -> list[Item]:
        """Some rows as items of `size` rows, in their order."""
        if self._columns is None or self._spec is None:
            return [self._items[row] for row in rows]
        parts = [column[torch.from_numpy(rows)].split(size) for column in self._columns]
        return [pytree.tree_unflatten(list(leaves), self._spec) for leaves in zip(*parts, strict=True)]

    def _labels(self) -> Sequence[Any]:
        if self._columns is None:
            targets = [item[2] for item in self._items]
            whole = all(isinstance(t, int) or (isinstance(t, Tensor) and t.numel() == 1) for t in targets)
            return [int(t) if whole else None for t in targets]
        last = self._columns[-1]
        return last.tolist() if last.dim() == 1 and not last.is_floating_point() else [None] * len(last)


def _columns(items: list[Item]) -> tuple[list[Tensor], pytree.TreeSpec] | None:
    """Each leaf of all items as one tensor, where the items can be joined."""
    flat = [pytree.tree_flatten(item) for item in items]
    spec, shapes = flat[0][1], None
    for leaves, own in flat:
        if own != spec or not leaves or not all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves):
            return None
        mine = [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        if len({len(leaf) for leaf in leaves}) != 1 or (shapes is not None and mine != shapes):
            return None
        shapes = mine
    return [torch.cat(column) for column in zip(*(leaves for leaves, _ in flat), strict=True)], spec
