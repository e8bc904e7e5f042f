"""The numbers that each weight of a matrix can be, column by column: a format's blocks cut along input channels."""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planish.formats import TENSOR, Format, Lut
from planish.formats.definition import effective
from planish.formats.each import of_each
from planish.formats.fit import by_rule
from planish.formats.integer import Int
from planish.formats.parameters import Given, Parameters, split
from planish.formats.pow2 import Pow2

FINE = tuple(1 - 0.02 * step for step in range(8))
COARSE = tuple(1 - 0.06 * step for step in range(14))
POWERS = (2.0, 1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Rounder:
    """Rounds the numbers of one input channel, `(tries, out)`, whose place is given with them.

    Attributes:
        scale: `(tries, out)`, where all channels of a segment have the same.
    """

    round: Callable[[Tensor, int], Tensor]
    scale: Tensor | None = None


@dataclass(frozen=True)
class Layout:
    """How a matrix `(out, in)` is stored: a linear layer's as it is or transposed, a convolution's with its kernel.

    Attributes:
        shape: Of the stored tensor.
        transposed: Whether it is `(in, out)`.
    """

    shape: tuple[int, ...]
    transposed: bool = False

    def matrix(self, stored: Tensor) -> Tensor:
        """`(out, in)`, of a tensor whose first axes are the layout's."""
        return stored.T if self.transposed else stored.reshape(self.shape[0], -1)

    def stored(self, matrix: Tensor) -> Tensor:
        """The inverse of `matrix`."""
        return (matrix.T if self.transposed else matrix.reshape(self.shape)).contiguous()


class Grid:
    """The numbers of a format for a matrix, by the columns that share scales.

    Where the format has scales of numbers, those of each segment of columns can be tried and chosen; codebooks,
    residuals and formats without a scale stay as they are given.

    Attributes:
        format: The format; its block refers to the weight as stored.
        parameters: One for each of its levels; changed by `choose`.
        segments: The columns that share scales, or all columns in one where nothing is searched.
    """

    def __init__(self, format: Format, parameters: Parameters, layout: Layout) -> None:
        self.format, self.parameters, self.layout = format, parameters, layout
        self.searched = format.scale is not None and format.residual is None and not isinstance(format.element, Lut)
        self._wide = format.scale_shape(layout.shape)
        self._ids = layout.matrix(_places(format, layout.shape)).T  # (in, out)
        labels = self._ids[:, 0] if self.searched else torch.zeros(len(self._ids))
        _, labels = labels.unique(return_inverse=True)
        self.segments = [torch.nonzero(labels == place).flatten() for place in range(int(labels.max()) + 1)]
        self._cut: tuple[Format, list[Tensor]] | None = None

    @property
    def tries(self) -> tuple[float, ...]:
        """By what the largest number of a block is multiplied to find its scale."""
        assert self.format.scale is not None
        if isinstance(self.format.scale.element, Pow2) and self.format.scale.scale is None:
            return POWERS
        return FINE if self.format.bits > 5 else COARSE

    def trials(self, columns: Tensor, values: Tensor, tries: Sequence[float]) -> list[Parameters]:
        """The parameters for each of `tries` where `values`, `(columns, out)`, are to be rounded."""
        low, high = self._extremes(columns, values)
        searched, given = replace(self.format, rule="mse"), split(self.format, self.parameters)
        return [by_rule(searched, low * share, high * share, None, given) for share in tries]

    def rounds(self, columns: Tensor, trials: Sequence[Parameters]) -> Rounder:
        """Rounds numbers of these columns, candidate by candidate, by the parameters of each."""
        if not self.searched:
            return Rounder(self._round_stored)
        given = [split(self.format, parameters) for parameters in trials]
        at = self._ids[columns[0]]
        assert self.format.scale is not None
        scale = torch.stack([self._of_blocks(effective(self.format.scale, one), at) for one in given])
        zeros = [self._of_blocks(one.zero, at).float() for one in given if one.zero is not None]
        zero = torch.stack(zeros) if zeros else None
        shift = torch.stack([self._shift(one, at) for one in given]) if self.format.offset else None
        element, rounding, overflow = self.format.element, self.format.rounding, self.format.overflow

        def rounded(values: Tensor, _place: int) -> Tensor:
            parts = values.float() if shift is None else values.float() + shift
            if zero is None:
                parts = element.round_(parts / scale, rounding, overflow)
            else:
                assert isinstance(element, Int)
                parts = element.round_(parts / scale, rounding, overflow, None, zero)
            parts = parts * scale
            return (parts if shift is None else parts - shift).to(values.dtype)

        return Rounder(rounded, scale)

    def snapped(self, matrix: Tensor) -> Tensor:
        """Numbers of the grid but for errors of arithmetic, `(out, in)`, exactly as they are stored."""
        if self.format.residual is not None:  # whose levels are rounded one after the other, so that it may move
            return matrix
        stored = self.layout.stored(matrix.float())
        return self.layout.matrix(self.format.cast(stored, self.parameters)).to(matrix.dtype)

    def choose(self, columns: Tensor, trials: Sequence[Parameters], losses: Tensor) -> Tensor:
        """Keep for each block the parameters of least loss; which trial that was, by row.

        Args:
            columns: The segment.
            trials: The parameters of each candidate.
            losses: `(tries, out)`.
        """
        at = self._ids[columns[0]]
        count = max(1, torch.Size(self._wide).numel())
        total = losses.new_zeros(len(losses), count).index_add_(1, at, losses)
        best = total.argmin(0)
        mine = torch.zeros(count, dtype=torch.bool).index_fill_(0, at, True)
        kept = split(self.format, self.parameters)
        for place, trial in enumerate(trials):
            where = (mine & (best == place)).reshape(self._wide)
            kept = kept.chosen(split(self.format, trial), where)
        self.parameters = kept.flat
        return best[at]

    def _extremes(self, columns: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        at, count = self._ids[columns[0]], max(1, torch.Size(self._wide).numel())
        low, high = torch.zeros(count), torch.zeros(count)
        low.scatter_reduce_(0, at, values.amin(0).float(), "amin")
        high.scatter_reduce_(0, at, values.amax(0).float(), "amax")
        return low.reshape(self._wide), high.reshape(self._wide)

    def _of_blocks(self, values: Tensor, at: Tensor) -> Tensor:
        return values.expand(self._wide).flatten()[at]

    def _shift(self, given: Given, at: Tensor) -> Tensor:
        assert self.format.offset is not None
        return self._of_blocks(self.format.offset._value(given.offset[0].float(), given.offset[1:]), at)

    def _round_stored(self, values: Tensor, place: int) -> Tensor:
        if self._cut is None:
            format, each = of_each(self.format, self.parameters, self.layout.shape)
            self._cut = format, [self._columns(p) for p in each]
        format, parameters = self._cut
        column = [p[:, place : place + 1].contiguous() for p in parameters]
        return format.cast(values[0][:, None].float(), column)[None, :, 0].to(values.dtype)

    def _columns(self, each: Tensor) -> Tensor:
        rest = each.shape[len(self.layout.shape) :]  # the numbers of a codebook
        return each.transpose(0, 1) if self.layout.transposed else each.reshape(self.layout.shape[0], -1, *rest)


def _places(format: Format, shape: Sequence[int]) -> Tensor:
    """The number of the block that each weight is in."""
    block = format.block or TENSOR
    wide = format.scale_shape(shape)
    spread = block.spread(torch.arange(torch.Size(wide).numel()).reshape(wide), shape)
    return block.join(spread.expand(block.split(torch.empty(shape, device="meta")).shape), shape)
