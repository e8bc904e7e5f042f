"""What a layer's inputs have in common: their products with each other, of linear layers and convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from planish.compress.sweep import Batch
from planish.graph import FAMILIES, Node

ROWS = 1 << 10
"""Rows of inputs that are multiplied at a time."""
PARTS = 4
"""Of a symmetric product, computed one after the other."""


@dataclass(frozen=True)
class Moments:
    """Sums over all rows of calibration data; a convolution's row is what its kernel covers at one position.

    Attributes:
        gram: Products of the actual inputs, `(in, in)` float64.
        cross: Products of the actual with the exact inputs, `(in, in)` float64.
        actual: Mean of the actual inputs, `(in,)` float64.
        exact: Mean of the exact inputs.
        count: Rows.
    """

    gram: Tensor
    cross: Tensor
    actual: Tensor
    exact: Tensor
    count: int


def moments(node: Node, batches: Iterable[Batch], about_mean: bool = False) -> Moments:
    """Of a linear layer or convolution in one group, given what comes in.

    Args:
        node: The layer.
        batches: Its inputs.
        about_mean: Whether products are of the inputs less their means.
    """
    gram = cross = actual = exact = torch.zeros((), dtype=torch.float64)
    count, same = 0, True
    shift: Tensor | None = None
    for some in _chunks(node, batches):
        if shift is None:
            shift = some[0].mean(0)
        some = [part - shift for part in some]  # so that float32 products keep what differs
        alike = len(some) == 1
        same &= alike
        product = _squared(some[0])
        gram = product.double().add_(gram)
        cross = gram if same else (product if alike else some[0].T @ some[1]).double().add_(cross)
        actual = actual + some[0].sum(0, dtype=torch.float64)
        exact = exact + some[-1].sum(0, dtype=torch.float64)
        count += len(some[0])
    assert shift is not None
    wide, actual, exact = shift.double(), actual / count, exact / count
    for sums, other in [(gram, actual)] if same else [(gram, actual), (cross, exact)]:  # in place: they are large
        if about_mean:
            sums.addr_(actual, other, alpha=-count)
        else:
            sums.addr_(wide, other + wide, alpha=count).addr_(actual, wide, alpha=count)
    return Moments(gram, gram if same else cross, actual + wide, exact + wide, count)


def _chunks(node: Node, batches: Iterable[Batch]) -> Iterator[list[Tensor]]:
    """Rows of actual and, where they differ, exact inputs, about `ROWS` at a time."""
    kept: list[list[Tensor]] = []
    for batch in batches:
        sides = [batch.actual] if batch.actual is batch.exact else [batch.actual, batch.exact]
        parts = [rows(node, side) for side in sides]
        if kept and (len(parts) != len(kept[0]) or sum(len(one[0]) for one in kept) >= ROWS):
            yield [torch.cat(side) for side in zip(*kept, strict=True)]
            kept = []
        kept.append(parts)
    if kept:
        yield [torch.cat(side) for side in zip(*kept, strict=True)]


def _squared(rows: Tensor) -> Tensor:
    """`rows.T @ rows`, of which only half is computed."""
    width, step = rows.shape[1], -(-rows.shape[1] // PARTS)
    result = rows.new_empty(width, width)
    for start in range(0, width, step):
        stop = min(start + step, width)
        result[:stop, start:stop] = rows[:, :stop].T @ rows[:, start:stop]
        result[start:stop, :start] = result[:start, start:stop].T
    return result


def rows(node: Node, value: Tensor) -> Tensor:
    """The input as `(rows, in)` float32, such that the output is its product with the weight as a matrix."""
    value = value.detach().float()
    if node.op not in FAMILIES["conv"]:
        return value.reshape(-1, value.shape[-1])
    assert node.weight is not None
    kernel = [int(size) for size in node.weight.value.shape[2:]]
    space = len(kernel)
    if value.dim() == space + 1:
        value = value[None]
    stride, dilation = (_each(node.argument(name), space) for name in ("stride", "dilation"))
    value = pad(value, _padding(node.argument("padding"), kernel, dilation))
    for axis in range(space):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        value = value.unfold(2 + axis, reach, stride[axis])[..., :: dilation[axis]]
    channels_last = value.movedim(1, 1 + space)  # (batch, *positions, channels, *kernel)
    return channels_last.flatten(0, space).flatten(1)


def _each(value: int | list[int], space: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * space if len(values) == 1 else values


def _padding(value: str | int | list[int], kernel: list[int], dilation: list[int]) -> list[int]:
    """For `pad`: both sides of each axis, the last axis first."""
    if value == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        sides = [(size // 2, size - size // 2) for size in total]
    else:
        sides = [(size, size) for size in _each(0 if isinstance(value, str) else value, len(kernel))]
    return [size for pair in reversed(sides) for size in pair]


def damped(moment: Tensor, share: float) -> Tensor:
    """Second moments, `(..., size, size)`, with a share of their mean, or with ones where there is nothing, on the
    diagonal."""
    size = moment.diagonal(dim1=-2, dim2=-1).mean(-1)
    size = torch.where(size > 0, share * size, 1.0)
    return moment + size[..., None, None] * torch.eye(moment.shape[-1], dtype=moment.dtype)


def root(matrices: Tensor) -> Tensor:
    """The symmetric square roots of positive matrices, `(..., size, size)`."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
