"""Which numbers of a tensor share a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import pad

from planish.errors import OptionError

Others = Literal["whole", "one"]
Ragged = Literal["pad", "refuse"]


@dataclass(frozen=True)
class Block:
    """A box of numbers with one scale, cut from a tensor of any rank.

    Attributes:
        sizes: `(axis, size)` pairs; an axis may be negative, and a size of None means the whole axis.
        others: How far a block reaches along the axes not named: over the "whole" axis or "one" index.
        ragged: What happens when an axis is not a multiple of its size: "pad" lets the last block be shorter (as if
            padded with zeros), "refuse" raises. An axis shorter than its size is one block, never padded.
    """

    sizes: tuple[tuple[int, int | None], ...] = ()
    others: Others = "whole"
    ragged: Ragged = "pad"

    def __post_init__(self) -> None:
        for axis, size in self.sizes:
            if size is not None and size < 1:
                raise OptionError(f"a block has 1 number or more along axis {axis}, not {size}", "sizes")
        if len({axis for axis, _ in self.sizes}) < len(self.sizes):
            raise OptionError(f"a block names an axis twice: {self.sizes}", "sizes")
        if self.others not in get_args(Others):
            raise OptionError(f"others is 'whole' or 'one', not {self.others!r}", "others")
        if self.ragged not in get_args(Ragged):
            raise OptionError(f"ragged is 'pad' or 'refuse', not {self.ragged!r}", "ragged")

    @property
    def is_tensor(self) -> bool:
        """Whether there is one scale for everything."""
        return self.others == "whole" and all(size is None for _, size in self.sizes)

    def layout(self, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """For each axis, the number of blocks along it and their size.

        Raises:
            OptionError: An axis is out of range or named twice, or does not divide and `ragged` is "refuse".
        """
        rank, named = len(shape), {}
        for axis, size in self.sizes:
            if not -rank <= axis < rank:
                raise OptionError(f"a block over axis {axis} does not fit a tensor of shape {tuple(shape)}", "block")
            if axis % rank in named:
                raise OptionError(f"a block names axis {axis} of shape {tuple(shape)} twice", "block")
            named[axis % rank] = size
        result = []
        for axis, length in enumerate(shape):
            size = named.get(axis, None if self.others == "whole" else 1)
            if size is None or (size >= length > 0):
                result.append((1, length))
                continue
            if length % size and self.ragged == "refuse":
                raise OptionError(
                    f"blocks of {size} do not divide axis {axis} of shape {tuple(shape)}", "block", "ragged='pad'"
                )
            result.append((math.ceil(length / size), size))
        return tuple(result)

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the scales of a tensor: `()` per tensor, otherwise the number of blocks along each axis."""
        return () if self.is_tensor or not shape else tuple(count for count, _ in self.layout(shape))

    def split(self, x: Tensor) -> Tensor:
        """`x` in a shape against which `spread` scales broadcast; a view of it where possible."""
        if self.is_tensor or x.dim() == 0 or _broadcasts(layout := self.layout(x.shape)):
            return x
        padding = [count * size - length for (count, size), length in zip(layout, x.shape, strict=True)]
        if any(padding):
            x = pad(x, [amount for last in reversed(padding) for amount in (0, last)])
        return x.reshape([n for pair in layout for n in pair])

    def join(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse of `split` for a tensor whose shape was `shape`."""
        if x.shape == shape:
            return x
        layout = self.layout(shape)
        x = x.reshape([count * size for count, size in layout])
        for axis, length in enumerate(shape):
            x = x.narrow(axis, 0, length)
        return x.contiguous()

    def spread(self, scale: Tensor, shape: Sequence[int]) -> Tensor:
        """Scales of shape `scale_shape(shape)`, or of one number, as they broadcast against `split`."""
        if scale.numel() == 1:
            return scale.reshape(()) if scale.dim() else scale
        expected = self.scale_shape(shape)
        if len(expected) != scale.dim() or any(n not in (1, m) for n, m in zip(scale.shape, expected, strict=True)):
            raise OptionError(
                f"parameters of shape {tuple(scale.shape)} do not fit a tensor of shape {tuple(shape)}, "
                f"which has {expected} blocks",
                "parameters",
            )
        if _broadcasts(self.layout(shape)):
            return scale
        return scale.reshape([n for count in scale.shape for n in (count, 1)])

    def inner_axes(self, x: Tensor) -> tuple[int, ...]:
        """The axes of `split(x)` that lie inside a block; empty where each block is one number."""
        if self.is_tensor or x.dim() == 0:
            return tuple(range(x.dim()))
        layout = self.layout(x.shape)
        if _broadcasts(layout):
            return tuple(axis for axis, (count, size) in enumerate(layout) if count == 1 and size != 1)
        return tuple(range(1, 2 * x.dim(), 2))

    def sum(self, x: Tensor) -> Tensor:
        """The sum over each block, in `scale_shape(x.shape)`."""
        parts, axes = self.split(x), self.inner_axes(x)
        return (parts.sum(axes) if axes else parts).reshape(self.scale_shape(x.shape))


def _broadcasts(layout: tuple[tuple[int, int], ...]) -> bool:
    """Whether scales broadcast against the tensor as it is: every axis is one block, or blocks of one."""
    return all(count == 1 or size == 1 for count, size in layout)


TENSOR = Block()
TOKEN = Block(((-1, None),), "one")


def channel(axis: int = 0) -> Block:
    """One scale for each index of `axis`."""
    return Block(((axis, 1),))


def group(size: int, axis: int = -1) -> Block:
    """One scale for each run of `size` numbers along `axis`."""
    return Block(((axis, size),), "one")


def tile(*sizes: int) -> Block:
    """One scale for each box of `sizes` in the last axes."""
    return Block(tuple((axis - len(sizes), size) for axis, size in enumerate(sizes)), "one")
