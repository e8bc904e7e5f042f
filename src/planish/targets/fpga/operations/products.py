"""Operations that multiply and add: by weights, and of two streams."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from planish.targets.fpga.operations.base import (
    Integers,
    Operation,
    Value,
    beside,
    joint_shape,
    matmul,
    product_bounds,
    weighted_bounds,
)
from planish.targets.fpga.operations.windows import check_windows, padded, taps, window_shape


@dataclass(frozen=True, eq=False)
class Linear(Operation):
    """`x @ weight.T + bias` over the last axis.

    Attributes:
        weight: Codes, `(out, in)`.
        bias: At the fraction bits of the output, `(out,)`.
    """

    weight: Integers
    bias: Integers | None = None

    @override
    def check(self) -> None:
        self.require(self.weight.ndim == 2, f"a weight of shape {self.weight.shape} is not (out, in)")
        _check_bias(self, self.weight, self.bias)

    @override
    def run(self, *codes: Integers) -> Integers:
        (x,) = codes
        y = matmul(x, self.weight.T)
        return y if self.bias is None else y + self.bias

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        self.require(
            x.row == self.weight.shape[1], f"{x.name} has rows of {x.row}, the weight takes {self.weight.shape[1]}"
        )
        return (*x.shape[:-1], self.weight.shape[0])

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return weighted_bounds(self.weight, inputs[0].codes.low, inputs[0].codes.high, self.bias)


@dataclass(frozen=True, eq=False)
class Convolve(Operation):
    """A convolution of one to three dimensions over `(*space, channels)`; padding is zeros.

    Attributes:
        weight: Codes, `(out, *kernel, in / groups)`.
        bias: `(out,)`.
        stride: Of each axis of space.
        padding: Before and after, of each axis of space.
        dilation: Of each axis of space.
        groups: Depthwise where equal to the channels.
    """

    weight: Integers
    bias: Integers | None
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the window on each axis of space."""
        return self.weight.shape[1:-1]

    @override
    def check(self) -> None:
        self.require(3 <= self.weight.ndim <= 5, f"a weight of shape {self.weight.shape} is not (out, *kernel, in)")
        self.require(
            self.groups > 0 and self.weight.shape[0] % self.groups == 0,
            f"{self.weight.shape[0]} channels are not in {self.groups} groups",
        )
        check_windows(self, self.kernel, self.stride, self.padding, self.dilation)
        _check_bias(self, self.weight, self.bias)

    @override
    def run(self, *codes: Integers) -> Integers:
        x = padded(codes[0], self.padding, 0)
        out, groups = self.weight.shape[0], self.groups
        weight = self.weight.reshape(groups, out // groups, *self.kernel, -1)
        total: Integers | None = None
        for place, tap in taps(x, self.kernel, self.stride, self.dilation):
            part = weight[(slice(None), slice(None), *place)]  # (groups, out / groups, in / groups)
            if groups == 1:
                product = matmul(tap, part[0].T)
            elif part.shape[1:] == (1, 1):
                product = tap * part[:, 0, 0]
            else:
                split = tap.reshape(*tap.shape[:-1], groups, 1, -1)
                product = matmul(split, part.swapaxes(1, 2)).reshape(*tap.shape[:-1], out)
            total = product if total is None else total + product
        assert total is not None
        return total if self.bias is None else total + self.bias

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        channels = self.weight.shape[-1] * self.groups
        self.require(x.row == channels, f"{x.name} has {x.row} channels, the weight takes {channels}")
        space = window_shape(self, x, self.kernel, self.stride, self.padding, self.dilation)
        return (*space, self.weight.shape[0])

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        low, high = inputs[0].codes.low, inputs[0].codes.high
        if any(size for pair in self.padding for size in pair):
            low, high = min(low, 0), max(high, 0)
        return weighted_bounds(self.weight.reshape(self.weight.shape[0], -1), low, high, self.bias)


@dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """The element-wise product of two inputs; the second may have size 1 on the last axis, or be a row."""

    @override
    def run(self, *codes: Integers) -> Integers:
        rank = len(self.output.shape)
        return beside(codes[0], rank) * beside(codes[1], rank)

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        return joint_shape(self, *inputs)

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        if self.inputs[0] == self.inputs[1]:
            codes = inputs[0].codes
            squares = (codes.low**2, codes.high**2)
            return (0 if codes.low <= 0 <= codes.high else min(squares)), max(squares)
        return product_bounds(inputs[0].codes, inputs[1].codes)


@dataclass(frozen=True, eq=False)
class MatMul(Operation):
    """`a @ b` of `(*batch, m, k)` and `(*batch, k, n)`, or of `(*batch, n, k)` if `transposed`: two streams.

    Attributes:
        transposed: Rows of `b` are what rows of `a` are multiplied with.
    """

    transposed: bool = False

    @override
    def run(self, *codes: Integers) -> Integers:
        a, b = codes
        return matmul(a, b.swapaxes(-1, -2) if self.transposed else b)

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        a, b = inputs
        self.require(len(a.shape) == len(b.shape) >= 2, f"{a.shape} and {b.shape} are no stacks of matrices")
        k, n = (b.shape[-1], b.shape[-2]) if self.transposed else b.shape[-2:]
        fits = a.shape[:-2] == b.shape[:-2] and a.shape[-1] == k
        self.require(fits, f"matrices {a.shape} and {b.shape}{' transposed' * self.transposed} have no product")
        return (*a.shape[:-1], n)

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        low, high = product_bounds(inputs[0].codes, inputs[1].codes)
        return low * inputs[0].row, high * inputs[0].row


@dataclass(frozen=True, eq=False)
class Embed(Operation):
    """Rows of a table, `(n, d)`, chosen by codes; the result has one axis more.

    Attributes:
        table: Codes, `(n, d)`.
    """

    table: Integers

    @override
    def check(self) -> None:
        self.require(self.table.ndim == 2, f"a table of shape {self.table.shape} is not (n, d)")

    @override
    def run(self, *codes: Integers) -> Integers:
        return self.table[codes[0]]

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        self.require(
            x.codes.low >= 0 and x.codes.high < len(self.table),
            f"{x.name} chooses rows {x.codes.low} to {x.codes.high} of {len(self.table)}",
        )
        return (*x.shape, self.table.shape[1])

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return int(self.table.min()), int(self.table.max())


@dataclass(frozen=True, eq=False)
class Aggregate(Operation):
    """A fixed sparse matrix times `(nodes, channels)`: what a node hears from its neighbors.

    Attributes:
        matrix: Codes, `(nodes out, nodes in)`.
    """

    matrix: Integers

    @override
    def check(self) -> None:
        self.require(self.matrix.ndim == 2, f"a matrix of shape {self.matrix.shape} is not (nodes out, nodes in)")

    @override
    def run(self, *codes: Integers) -> Integers:
        return matmul(self.matrix, codes[0])

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        fits = len(x.shape) == 2 and x.shape[0] == self.matrix.shape[1]
        self.require(fits, f"{x.name} of shape {x.shape} is not ({self.matrix.shape[1]}, channels)")
        return (self.matrix.shape[0], x.row)

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return weighted_bounds(self.matrix, inputs[0].codes.low, inputs[0].codes.high, None)


def _check_bias(operation: Operation, weight: Integers, bias: Integers | None) -> None:
    fits = bias is None or bias.shape == weight.shape[:1]
    operation.require(fits, f"a bias of shape {None if bias is None else bias.shape} is not ({weight.shape[0]},)")
