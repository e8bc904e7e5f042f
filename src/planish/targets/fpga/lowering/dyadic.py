"""Numbers that are integers times a power of two: the only ones an integer program can hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planish.targets.fpga.operations.base import Integers

FINEST = 256
"""Binary places that are looked at."""


def dyadic(values: NDArray[np.float64]) -> tuple[Integers, int] | None:
    """The integers and the fraction bits, as few as can be, that are these numbers: `codes * 2**-frac`.

    Returns:
        None where that takes integers of more than 53 bits, or a number is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        return None
    nonzero = np.abs(values[values != 0])
    if not nonzero.size:
        return np.zeros(values.shape, dtype=np.int64), 0
    mantissa, exponent = np.frexp(nonzero)
    whole = (mantissa * 2.0**53).astype(np.int64)  # odd part times a power of two
    trailing = np.log2((whole & -whole).astype(np.float64)).astype(np.int64)
    frac = int((53 - exponent - trailing).max())
    if abs(frac) > FINEST or float(np.log2(nonzero.max())) + frac >= 53:
        return None
    return np.ldexp(values, frac).astype(np.int64), frac


def power_of_two(x: float) -> int | None:
    """The exponent of a positive power of two; None for any other number."""
    mantissa, exponent = np.frexp(x)
    return int(exponent) - 1 if mantissa == 0.5 else None
