"""Operations on each number by itself, and on numbers at equal places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from planish.targets.fpga.operations.base import Integers, Operation, Value, beside, exact_sum, joint_shape
from planish.targets.fpga.operations.rounding import ROUNDINGS, shift_right


@dataclass(frozen=True, eq=False)
class Requantize(Operation):
    """`clamp(round(x * multiplier * 2**-shift), low, high)`, the bounds being those of the output's codes.

    Attributes:
        multiplier: Nonnegative, `()` or `(channels,)`.
        shift: Bits that go; negative ones come.
        rounding: "even" (half to even), "up" (half up) or "floor".
    """

    multiplier: Integers
    shift: int
    rounding: str = "even"

    @override
    def check(self) -> None:
        check_rounding(self, self.rounding)
        fits = self.multiplier.shape in ((), (self.output.row,))
        self.require(fits, f"a multiplier of shape {self.multiplier.shape} is neither () nor ({self.output.row},)")
        self.require(int(self.multiplier.min()) >= 0, "a multiplier is negative")
        self.require(abs(self.shift) < 63, f"a shift by {self.shift} is further than 62 bits")

    @override
    def run(self, *codes: Integers) -> Integers:
        rounded = shift_right(codes[0] * self.multiplier, self.shift, self.rounding)
        return np.clip(rounded, self.output.codes.low, self.output.codes.high)

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        return inputs[0].shape

    def unclamped(self, *inputs: Value) -> tuple[int, int]:
        """Bounds of what is clamped."""
        factor = int(self.multiplier.max())
        codes = inputs[0].codes
        ends = [_shifted(end * factor, self.shift) for end in (min(codes.low, 0), max(codes.high, 0))]
        return ends[0], ends[1]

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return self.output.codes.low, self.output.codes.high


def _shifted(x: int, shift: int) -> int:
    return x << -shift if shift < 0 else x >> shift


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum of `sign * (x << shift)` over the inputs; one of them may have size 1 on the last axis, or be a row.

    Attributes:
        shifts: Nonnegative, one for each input.
        signs: 1 or -1, one for each input.
    """

    shifts: tuple[int, ...]
    signs: tuple[int, ...]

    @override
    def check(self) -> None:
        self.require(
            len(self.shifts) == len(self.signs) == len(self.inputs), "each input has a shift and a sign, no more"
        )
        self.require(all(0 <= shift < 63 for shift in self.shifts), f"shifts {self.shifts} are not from 0 to 62")
        self.require(set(self.signs) <= {1, -1}, f"signs {self.signs} are not 1 or -1")

    @override
    def run(self, *codes: Integers) -> Integers:
        rank = len(self.output.shape)
        terms = zip(codes, self.shifts, self.signs, strict=True)
        parts = [sign * (beside(x, rank) << shift) for x, shift, sign in terms]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        for value, shift in zip(inputs, self.shifts, strict=True):
            found = value.codes.frac + shift
            self.require(
                found == self.output.codes.frac,
                f"{value.name} has {found} fraction bits after its shift, the sum has {self.output.codes.frac}",
            )
        return joint_shape(self, *inputs)

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        terms = list(zip((value.codes for value in inputs), self.shifts, self.signs, strict=True))
        low = [(codes.low << shift) if sign > 0 else -(codes.high << shift) for codes, shift, sign in terms]
        high = [(codes.high << shift) if sign > 0 else -(codes.low << shift) for codes, shift, sign in terms]
        return exact_sum(low, high)


@dataclass(frozen=True, eq=False)
class Constant(Operation):
    """Numbers that are always the same: position embeddings, class tokens, scales of a norm. `run` gives a batch of 1.

    Attributes:
        value: Codes of the output's shape.
    """

    value: Integers

    @override
    def check(self) -> None:
        self.require(self.value.shape == self.output.shape, f"a value of shape {self.value.shape} is not the output's")

    @override
    def run(self, *codes: Integers) -> Integers:
        return self.value[None]

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        return self.value.shape

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return int(self.value.min()), int(self.value.max())


@dataclass(frozen=True, eq=False)
class Lookup(Operation):
    """Each code replaced by its entry of a table: any function of one number.

    Attributes:
        table: One entry for each code of the input, from its lowest.
        base: The lowest code of the input.
    """

    table: Integers
    base: int

    @override
    def check(self) -> None:
        self.require(self.table.ndim == 1, f"a table of shape {self.table.shape} is no list")

    @override
    def run(self, *codes: Integers) -> Integers:
        return self.table[codes[0] - self.base]

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        codes = inputs[0].codes
        self.require(self.base == codes.low, f"the table begins at {self.base}, {inputs[0].name} at {codes.low}")
        count = codes.high - codes.low + 1
        self.require(len(self.table) == count, f"a table of {len(self.table)} entries is read by {count} codes")
        return inputs[0].shape

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return int(self.table.min()), int(self.table.max())


def check_rounding(operation: Operation, rounding: str) -> None:
    """Refuse an unknown rounding."""
    operation.require(rounding in ROUNDINGS, f"rounding {rounding!r} is none of {', '.join(ROUNDINGS)}")
