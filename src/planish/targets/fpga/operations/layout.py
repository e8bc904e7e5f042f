"""Operations that move numbers and change none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from planish.targets.fpga.operations.base import Integers, Operation, Value


@dataclass(frozen=True, eq=False)
class _Move(Operation):
    """An operation whose output holds what its inputs hold."""

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return min(value.codes.low for value in inputs), max(value.codes.high for value in inputs)


@dataclass(frozen=True, eq=False)
class Permute(_Move):
    """Axes in another order.

    Attributes:
        axes: The input's axis that becomes each of the output's.
    """

    axes: tuple[int, ...]

    @override
    def run(self, *codes: Integers) -> Integers:
        return np.ascontiguousarray(codes[0].transpose(0, *(axis + 1 for axis in self.axes)))

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        self.require(sorted(self.axes) == list(range(len(x.shape))), f"axes {self.axes} are not those of {x.shape}")
        return tuple(x.shape[axis] for axis in self.axes)


@dataclass(frozen=True, eq=False)
class Reshape(_Move):
    """The same numbers in the same order under the output's shape: only wires."""

    @override
    def run(self, *codes: Integers) -> Integers:
        return codes[0].reshape(len(codes[0]), *self.output.shape)

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        self.require(x.size == self.output.size, f"{x.name} has {x.size} numbers, not {self.output.size}")
        return self.output.shape


@dataclass(frozen=True, eq=False)
class Slice(_Move):
    """A part of one axis.

    Attributes:
        axis: Which.
        start: First index.
        stop: Index after the last.
        step: Distance.
    """

    axis: int
    start: int
    stop: int
    step: int = 1

    @override
    def check(self) -> None:
        self.require(self.axis >= 0 and self.step > 0, "an axis is counted from the front, and a step is positive")
        self.require(0 <= self.start < self.stop, f"from {self.start} to {self.stop} there is nothing")

    @override
    def run(self, *codes: Integers) -> Integers:
        cut = [slice(None)] * (self.axis + 1) + [slice(self.start, self.stop, self.step)]
        return np.ascontiguousarray(codes[0][tuple(cut)])

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        fits = self.axis < len(x.shape) and self.stop <= x.shape[self.axis]
        self.require(fits, f"axis {self.axis} of {x.shape} does not reach {self.stop}")
        count = len(range(self.start, self.stop, self.step))
        return (*x.shape[: self.axis], count, *x.shape[self.axis + 1 :])


@dataclass(frozen=True, eq=False)
class Concat(_Move):
    """Inputs one after the other along an axis.

    Attributes:
        axis: Which.
    """

    axis: int

    @override
    def check(self) -> None:
        self.require(self.axis >= 0, "an axis is counted from the front")

    @override
    def run(self, *codes: Integers) -> Integers:
        batch = max(len(x) for x in codes)
        return np.concatenate([np.broadcast_to(x, (batch, *x.shape[1:])) for x in codes], axis=self.axis + 1)

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        first, axis = inputs[0].shape, self.axis
        self.require(axis < len(first), f"{first} has no axis {axis}")
        for value in inputs:
            fits = value.shape[:axis] == first[:axis] and value.shape[axis + 1 :] == first[axis + 1 :]
            self.require(fits, f"{value.name} of shape {value.shape} does not go beside {first} along axis {axis}")
            same = value.codes.frac == self.output.codes.frac
            self.require(same, f"{value.name} has {value.codes.frac} fraction bits, not {self.output.codes.frac}")
        return (*first[:axis], sum(value.shape[axis] for value in inputs), *first[axis + 1 :])


@dataclass(frozen=True, eq=False)
class Spread(_Move):
    """Zeros between the numbers of each axis of space, as before a transposed convolution.

    Attributes:
        stride: Distance of what was next to each other, of each axis of space.
    """

    stride: tuple[int, ...]

    @override
    def check(self) -> None:
        self.require(min(self.stride) > 0, f"stride {self.stride} is not positive")

    @override
    def run(self, *codes: Integers) -> Integers:
        spread = np.zeros((len(codes[0]), *self.output.shape), dtype=np.int64)
        spread[(slice(None), *(slice(None, None, step) for step in self.stride))] = codes[0]
        return spread

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        self.require(len(x.shape) == len(self.stride) + 1, f"{x.shape} has not {len(self.stride)} axes of space")
        return (*((n - 1) * step + 1 for n, step in zip(x.shape, self.stride, strict=False)), x.row)

    @override
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        return min(inputs[0].codes.low, 0), max(inputs[0].codes.high, 0)


@dataclass(frozen=True, eq=False)
class Repeat(_Move):
    """Each number of space repeated: nearest-neighbor upsampling.

    Attributes:
        times: Of each axis of space.
    """

    times: tuple[int, ...]

    @override
    def check(self) -> None:
        self.require(min(self.times) > 0, f"{self.times} times is not positive")

    @override
    def run(self, *codes: Integers) -> Integers:
        (x,) = codes
        for axis, times in enumerate(self.times, 1):
            x = np.repeat(x, times, axis)
        return x

    @override
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        (x,) = inputs
        self.require(len(x.shape) == len(self.times) + 1, f"{x.shape} has not {len(self.times)} axes of space")
        return (*(n * times for n, times in zip(x.shape, self.times, strict=False)), x.row)
