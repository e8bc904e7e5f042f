"""Doors: where floats of the model become codes of a program, and codes its results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish.errors import DataError
from planish.targets.fpga.operations.base import Codes, Integers, Value

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Door:
    """How a tensor of the model is an input or output of the program.

    Attributes:
        axes: The model's axis, not counting a batch, that is each of the value's.
        batched: Whether the model's tensor has a batch in front; otherwise the whole tensor is one sample.
        rounding: Of a float on its way in, one of `ROUNDINGS`; numbers beyond the codes become the nearest one.
        integer: Whether the model's tensor holds integers.
    """

    axes: tuple[int, ...]
    batched: bool = True
    rounding: str = "even"
    integer: bool = False

    def encode(self, x: Array, value: Value) -> Integers:
        """The codes that stand for a tensor of the model, rounded and saturated; integers are taken as they are.

        Raises:
            DataError: Another shape, NaN, or an infinity.
        """
        batch = x if self.batched else x[None]
        sizes = dict(zip(self.axes, value.shape, strict=True))
        wanted = tuple(sizes[axis] for axis in range(len(value.shape)))
        if batch.shape[1:] != wanted:
            raise DataError(
                f"a tensor of shape {x.shape} is not {('batch', *wanted) if self.batched else wanted}", value.name
            )
        moved = batch.transpose(0, *(axis + 1 for axis in self.axes))
        if self.integer:
            return _checked(moved, value)
        if not np.isfinite(moved).all():
            raise DataError("an input holds NaN or infinity", value.name)
        return _rounded(moved.astype(np.float64) * 2.0**value.codes.frac, self.rounding, value.codes)

    def decode(self, codes: Integers, value: Value) -> Array:
        """The model's own result, in float64 or int64."""
        places = {axis: place for place, axis in enumerate(self.axes)}
        moved = codes.transpose(0, *(places[axis] + 1 for axis in range(len(self.axes))))
        result = moved if self.integer else moved * 2.0**-value.codes.frac
        return result if self.batched else result[0]


def _checked(x: Array, value: Value) -> Integers:
    if not np.issubdtype(x.dtype, np.integer):
        raise DataError(f"this input takes integers, not {x.dtype}", value.name)
    if x.size and not value.codes.holds(int(x.min()), int(x.max())):
        raise DataError(
            f"numbers from {x.min()} to {x.max()} are not all from {value.codes.low} to {value.codes.high}", value.name
        )
    return x.astype(np.int64)


def _rounded(x: NDArray[np.float64], rounding: str, codes: Codes) -> Integers:
    floor = np.floor(x)
    match rounding:
        case "even":
            rounded = np.rint(x)
        case "up":
            rounded = floor + (x - floor >= 0.5)
        case _:
            rounded = floor
    return np.clip(rounded, codes.low, codes.high).astype(np.int64)
