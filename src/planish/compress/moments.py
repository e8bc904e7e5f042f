"""What a layer's inputs have in common: their products with each other, of linear layers and convolutions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from planish.compress.sweep import Batch
from planish.graph import FAMILIES, Node

ROWS = 1 << 14
"""Rows of inputs that are multiplied at a time."""


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

    @property
    def about_mean(self) -> Moments:
        """The same of the inputs less their means."""
        gram = self.gram - self.count * torch.outer(self.actual, self.actual)
        cross = self.cross - self.count * torch.outer(self.actual, self.exact)
        return Moments(gram, cross, self.actual, self.exact, self.count)


def moments(node: Node, batches: Iterable[Batch]) -> Moments:
    """Of a linear layer or convolution in one group, given what comes in."""
    gram = cross = actual = exact = torch.zeros((), dtype=torch.float64)
    count, same = 0, True
    shift: Tensor | None = None
    for batch in batches:
        alike = batch.actual is batch.exact
        same &= alike
        sides = [rows(node, batch.actual)]
        sides += [] if alike else [rows(node, batch.exact)]
        if shift is None:
            shift = sides[0].mean(0)
        for some in zip(*(side.split(ROWS) for side in sides), strict=True):
            some = [part - shift for part in some]  # so that float32 products keep what differs
            product = some[0].T @ some[0]
            gram = gram + product
            cross = cross + (product if alike else some[0].T @ some[-1])
            actual = actual + some[0].sum(0, dtype=torch.float64)
            exact = exact + some[-1].sum(0, dtype=torch.float64)
            count += len(some[0])
    assert shift is not None
    wide, actual, exact = shift.double(), actual / count, exact / count
    gram = gram + count * (torch.outer(wide, actual) + torch.outer(actual, wide) + torch.outer(wide, wide))
    cross = cross + count * (torch.outer(wide, exact) + torch.outer(actual, wide) + torch.outer(wide, wide))
    return Moments(gram, gram if same else cross, actual + wide, exact + wide, count)


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
