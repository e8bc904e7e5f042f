"""Operations that look at a row or a window of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from planish.targets.fpga.operations.base import Codes, Integers, Operation, Value
from planish.targets.fpga.operations.pointwise import check_rounding
from planish.targets.fpga.operations.rounding import shift_right
from planish.targets.fpga.operations.windows import check_windows, padded, taps, window_shape


@dataclass(frozen=True, eq=False)
class Reduce(Operation):
    """Sum or maximum of each row (the last axis), which keeps size 1.

    Attributes:
        kind: "sum" or "max".
    """

    kind: str

    @override
    def check(self) -> None:
        _check_kind(self, self.kind)

    @override
    def run(self, *codes: Integers) -> Integers:
        (x,) = codes
        return x.sum(-1, keepdims=True) if self.kind == "sum" else x.max(-1, keepdims=True)

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        return (*inputs[0].shape[:-1], 1)

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        times = inputs[0].row if self.kind == "sum" else 1
        return inputs[0].codes.low * times, inputs[0].codes.high * times


@dataclass(frozen=True, eq=False)
class Normalize(Operation):
    """`x / v` or `x / sqrt(v)`, by a table over the leading bits of `v`, a row's number, that is not negative.

    With `p = floor(log2 v)` (made even for the root), the index is the `index` bits below the leading one (and, for the
    root, the parity of `floor(log2 v)` above them). The result is `clamp(round(x * table[i] * 2**-(shift + q)))` with
    `q = p` for the quotient and `p / 2` for the root. Where `v` is 0 it counts as 1.

    Attributes:
        root: Divide by the square root.
        index: Leading bits of `v` that are looked at, without the first one; further ones are cut off.
        table: Nonnegative, `2**index` entries, twice as many for the root.
        shift: Bits that go whatever `v` is.
        rounding: As for `Requantize`.
    """

    root: bool
    index: int
    table: Integers
    shift: int
    rounding: str = "even"

    @override
    def check(self) -> None:
        check_rounding(self, self.rounding)
        self.require(0 <= self.index <= 16, f"an index of {self.index} bits is not from 0 to 16")
        wanted = 2 ** (self.index + self.root)
        self.require(self.table.shape == (wanted,), f"a table of shape {self.table.shape} has not {wanted} entries")
        self.require(int(self.table.min()) >= 0, "an entry of the table is negative")

    @override
    def run(self, *codes: Integers) -> Integers:
        x, v = codes[0], np.maximum(codes[1], 1)
        power = np.frexp(v.astype(np.float64))[1].astype(np.int64) - 1
        power -= (np.int64(1) << power) > v  # a number just below a power of two may have been rounded up to it
        below = power - self.index
        place = (v >> np.maximum(below, 0) << np.maximum(-below, 0)) & (2**self.index - 1)
        if self.root:
            place, power = place + ((power & 1) << self.index), power >> 1
        rounded = shift_right(x * self.table[place], self.shift + power, self.rounding)
        return np.clip(rounded, self.output.codes.low, self.output.codes.high)

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        x, v = inputs
        self.require(v.shape == (*x.shape[:-1], 1), f"{v.name} of shape {v.shape} is not one number a row of {x.shape}")
        self.require(v.codes.low >= 0, f"{v.name} may be {v.codes.low}, and is divided by")
        return x.shape

    def unclamped(self, *inputs: Value) -> tuple[int, int]:
        """Bounds of what is clamped."""
        factor = int(self.table.max())
        least = inputs[0].codes.low * factor, inputs[0].codes.high * factor
        return (min(least[0], 0) << max(-self.shift, 0), max(least[1], 0) << max(-self.shift, 0))

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return self.output.codes.low, self.output.codes.high


@dataclass(frozen=True, eq=False)
class Microscale(Operation):
    """Runs of a row that share an exponent (block floating point; OCP MX 1.0, section 6.3, for integer elements).

    With `m` the largest magnitude of a run, `s = max(floor(log2 m) - floor(log2 high), 0)` low bits go: each number `x`
    becomes `clamp(round(x * 2**-s), low, high) * 2**s`, on the grid that it came on.

    Attributes:
        group: Numbers in a run; the last one of a row may have fewer.
        low: The lowest code of an element.
        high: The highest one.
        rounding: As for `Requantize`.
    """

    group: int
    low: int
    high: int
    rounding: str = "even"

    @property
    def top(self) -> int:
        """The place of the highest bit of an element's magnitude."""
        return self.high.bit_length() - 1

    @override
    def check(self) -> None:
        check_rounding(self, self.rounding)
        self.require(self.group > 0, f"a run of {self.group} numbers")
        self.require(self.low <= 0 < self.high, f"elements from {self.low} to {self.high} share no exponent")

    @override
    def run(self, *codes: Integers) -> Integers:
        (x,) = codes
        row = x.shape[-1]
        ends = np.arange(0, row, self.group)
        largest = np.maximum.reduceat(np.abs(x), ends, axis=-1)
        places = np.frexp(largest.astype(np.float64))[1].astype(np.int64) - 1  # exact: `shape` refuses what is wider
        shift = np.repeat(np.maximum(places - self.top, 0), self.group, axis=-1)[..., :row]
        return np.clip(shift_right(x, shift, self.rounding), self.low, self.high) << shift

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        self.require(x.codes.largest < 2**53, f"{x.name} has more than the 53 bits in which float64 is exact")
        self.require(self.most(x.codes) > 0, f"no bit of {x.name}, {x.codes.low} to {x.codes.high}, ever goes")
        return x.shape

    def most(self, codes: Codes) -> int:
        """The most bits that go."""
        return max(codes.largest.bit_length() - 1 - self.top, 0)

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        codes = inputs[0].codes

        def reached(end: int, shift: int) -> int:
            rounded = int(shift_right(np.asarray(end), shift, self.rounding))
            return min(max(rounded, self.low), self.high) << shift

        shifts = range(self.most(codes) + 1)
        return min(reached(codes.low, each) for each in shifts), max(reached(codes.high, each) for each in shifts)


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """Sum or maximum over windows of `(*space, channels)`; windows lie inside the padded input.

    Attributes:
        kind: "sum" (padding is zeros) or "max" (padding never wins).
        kernel: Of each axis of space.
        stride: Of each axis of space.
        padding: Before and after, of each axis of space.
    """

    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @override
    def check(self) -> None:
        _check_kind(self, self.kind)
        check_windows(self, self.kernel, self.stride, self.padding, (1,) * len(self.kernel))
        within = all(max(pair) < size for pair, size in zip(self.padding, self.kernel, strict=True))
        self.require(within, "padding of the size of the window or more leaves windows with nothing in them")

    @override
    def run(self, *codes: Integers) -> Integers:
        least = np.iinfo(np.int64).min if self.kind == "max" else 0
        x = padded(codes[0], self.padding, int(least))
        parts = [part for _, part in taps(x, self.kernel, self.stride, (1,) * len(self.kernel))]
        total = parts[0]
        for part in parts[1:]:
            total = total + part if self.kind == "sum" else np.maximum(total, part)
        return total

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        ones = (1,) * len(self.kernel)
        return (*window_shape(self, x, self.kernel, self.stride, self.padding, ones), x.row)

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        low, high = inputs[0].codes.low, inputs[0].codes.high
        if self.kind == "max":
            return low, high
        if any(size for pair in self.padding for size in pair):
            low, high = min(low, 0), max(high, 0)
        count = int(np.prod(self.kernel))
        return low * count, high * count


def _check_kind(operation: Operation, kind: str) -> None:
    operation.require(kind in ("sum", "max"), f"kind {kind!r} is neither sum nor max")
