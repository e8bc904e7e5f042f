"""The sizes of axes as algebra: which indices of which axes are the same channels.

A `Dim` is an axis or a part of one. It starts as a leaf, a set of indices of which nothing is known, and is refined as
operations show its structure: a product where a view splits it (heads × features of a head), in C order; a sum where
a split cuts it (query, key, value). Two axes that an operation lets meet are made one, as type inference does with
types. A leaf that no operation holds fast may lose indices; every axis then loses what its expression says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import torch
from torch import Tensor


@dataclass(eq=False)
class Dim:
    """A set of `size` indices.

    Attributes:
        size: How many.
        kind: What it is made of: nothing known, a product of `parts` in C order, or their concatenation.
        parts: Of a product or a sum; two or more.
        frozen: Why no index may go; "" if it may. Of leaves only.
        same: The dimension that this one was found equal to.
    """

    size: int
    kind: Literal["leaf", "product", "sum"] = "leaf"
    parts: tuple[Dim, ...] = ()
    frozen: str = ""
    same: Dim | None = field(default=None, repr=False)


Keep = Mapping[Dim, Tensor]
"""The indices that stay of leaves, in the order that they get; a leaf left out keeps all."""


def root(dim: Dim) -> Dim:
    """The dimension that stands for all that were found equal to it."""
    while dim.same is not None:
        dim = dim.same
    return dim


def leaves(dim: Dim) -> Iterator[Dim]:
    """The leaves of an expression, from left to right; one may come twice."""
    dim = root(dim)
    if dim.kind == "leaf":
        yield dim
    for part in dim.parts:
        yield from leaves(part)


def freeze(dim: Dim, why: str) -> None:
    """Keep all indices of a dimension; the first reason stays."""
    for leaf in leaves(dim):
        leaf.frozen = leaf.frozen or why


def product(parts: Sequence[Dim]) -> Dim:
    """The dimension of all combinations of indices, the last varying fastest."""
    parts = tuple(part for part in parts if part.size != 1)
    if len(parts) < 2:
        return parts[0] if parts else Dim(1)
    return Dim(prod(part.size for part in parts), "product", parts)


def concatenation(parts: Sequence[Dim]) -> Dim:
    """One dimension after the other."""
    parts = tuple(part for part in parts if part.size != 0)
    if len(parts) < 2:
        return parts[0] if parts else Dim(0)
    return Dim(sum(part.size for part in parts), "sum", parts)


def unify(a: Dim, b: Dim, why: str) -> None:
    """Make two dimensions one.

    What cannot be expressed (parts that straddle a border of the other's) is frozen.

    Args:
        a: A dimension.
        b: Another, of the same size.
        why: The reason to give where that fails.
    """
    a, b = root(a), root(b)
    if a is b:
        return
    if a.size != b.size:
        freeze(a, why)
        freeze(b, why)
        return
    if a.kind != "leaf" and b.kind == "leaf":
        a, b = b, a
    if a.kind == "leaf":
        if a.frozen:
            freeze(b, a.frozen)
        a.same = b
        return
    if a.kind == b.kind:
        _align(a, b, why)
    else:
        total, factors = (a, b) if a.kind == "sum" else (b, a)
        _factor(total, _flat(factors)[-1].size, why)
        if total.kind == "sum":
            freeze(total, why)
            freeze(factors, why)
            return
        _align(total, factors, why)
    if root(b) is not root(a):
        b.same = a


def _flat(dim: Dim) -> list[Dim]:
    """The parts of a product or sum, none of them of the same kind."""
    found: list[Dim] = []
    for part in map(root, dim.parts):
        found += _flat(part) if part.kind == dim.kind else [part]
    return found


def _align(a: Dim, b: Dim, why: str) -> None:
    """Unify two products, or two sums, part by part; a larger part is divided where the other one has a border."""
    whole = (a, b)
    left, right = _flat(a)[::-1], _flat(b)[::-1]
    while left and right:
        x, y = root(left.pop()), root(right.pop())
        if x.kind == a.kind or y.kind == a.kind:  # what was aligned before has divided it
            left += _flat(x)[::-1] if x.kind == a.kind else [x]
            right += _flat(y)[::-1] if y.kind == a.kind else [y]
            continue
        if x.size == y.size:
            unify(x, y, why)
            continue
        small, large, rest = (y, x, left) if x.size > y.size else (x, y, right)
        if a.kind == "sum":
            other = Dim(large.size - small.size)
            unify(large, concatenation((small, other)), why)
        elif large.size % small.size == 0:
            other = Dim(large.size // small.size)
            unify(large, product((small, other)), why)
        else:
            for dim in whole:
                freeze(dim, why)
            return
        rest.append(other)


def _factor(total: Dim, size: int, why: str) -> None:
    """Write a sum as a product whose last factor has `size` indices, if every part has that factor."""
    parts = _flat(total)
    if any(part.size % size for part in parts):
        return
    last = Dim(size)
    heads = [Dim(part.size // size) for part in parts]
    for part, head in zip(parts, heads, strict=True):
        unify(part, product((head, last)), why)
    total.kind, total.parts = "product", (concatenation(heads), last)


def size_of(dim: Dim, keep: Keep) -> int:
    """How many indices of a dimension stay."""
    dim = root(dim)
    if dim.kind == "leaf":
        return len(keep[dim]) if dim in keep else dim.size
    sizes = [size_of(part, keep) for part in dim.parts]
    return prod(sizes) if dim.kind == "product" else sum(sizes)


def indices_of(dim: Dim, keep: Keep) -> Tensor:
    """The indices of a dimension that stay, in the order that they get."""
    dim = root(dim)
    if dim.kind == "leaf":
        return keep.get(dim, torch.arange(dim.size))
    kept = [indices_of(part, keep) for part in dim.parts]
    sizes = [part.size for part in dim.parts]
    if dim.kind == "sum":
        starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
        return torch.cat([start + part for start, part in zip(starts, kept, strict=False)])
    found = kept[0]
    for part, size in zip(kept[1:], sizes[1:], strict=True):
        found = (found[:, None] * size + part).reshape(-1)
    return found


def labels_of(dim: Dim, leaf: Dim) -> Tensor:
    """For each index of a dimension, the index of `leaf` that it goes with; -1 where it goes with none.

    A leaf that occurs twice in a product labels by its first occurrence.
    """
    dim = root(dim)
    if dim is leaf:
        return torch.arange(dim.size)
    if dim.kind == "leaf":
        return torch.full((dim.size,), -1)
    parts = [labels_of(part, leaf) for part in dim.parts]
    if dim.kind == "sum":
        return torch.cat(parts)
    found = parts[0]
    for part in parts[1:]:
        grid = found[:, None].expand(-1, len(part))
        found = torch.where(grid >= 0, grid, part).reshape(-1)
    return found


def moved(dim: Dim, keep: Keep) -> bool:
    """Whether a dimension loses indices."""
    return any(leaf in keep for leaf in leaves(dim))
