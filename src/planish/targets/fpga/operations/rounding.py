"""Shifts that round, the same in NumPy, in the prepared graph and in SystemVerilog."""

from __future__ import annotations

import numpy as np

from planish.targets.fpga.operations.base import Integers

ROUNDINGS = ("even", "up", "floor")
"""Nearest with ties to even, nearest with ties toward plus infinity, toward minus infinity."""


def shift_right(x: Integers, shift: Integers | int, rounding: str) -> Integers:
    """`round(x * 2**-shift)`; a negative shift is exact.

    Args:
        x: Any shape.
        shift: A number, or one for each of `x`; at most 63 either way.
        rounding: One of `ROUNDINGS`.
    """
    shift = np.asarray(shift, dtype=np.int64)
    away = np.maximum(shift, 0)
    floor = x >> away
    if rounding == "floor":
        rounded = floor
    else:
        rest, half = x - (floor << away), np.where(away > 0, np.int64(1) << np.maximum(away - 1, 0), 1)
        up = rest > half if rounding == "even" else rest >= half
        tie = (rest == half) & (floor & 1 == 1) if rounding == "even" else np.False_
        rounded = floor + (up | tie)
    return np.asarray(rounded << np.maximum(-shift, 0), dtype=np.int64)
