"""The fixed-point format of a value, from the numbers that it takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from planish.errors import DataError
from planish.formats import Format, Int
from planish.formats.rounding import Rounding

MOST = 1 << 18
"""As many numbers are looked at."""
FINER = 3
"""Places finer than what holds the largest number that are tried."""


def fixed_format(values: Tensor, bits: int, rounding: Rounding, where: str) -> Format:
    """The fixed-point format of so many bits with the least squared error; unsigned where no number is negative.

    Raises:
        DataError: A number is NaN or infinite.
    """
    flat = values.detach().double().flatten()
    low, high = (float(flat.min()), float(flat.max())) if flat.numel() else (0.0, 0.0)
    if not math.isfinite(low) or not math.isfinite(high):
        raise DataError("a value is NaN or infinite on the calibration data", where, "check the data and the model")
    signed = low < 0
    sample = (
        flat if flat.numel() <= MOST else torch.cat([flat[:: -(-flat.numel() // MOST)], flat.new_tensor([low, high])])
    )
    coarse = _coarsest(low, high, bits, signed)
    formats = [Format(Int(bits, coarse + more, signed), scale=None, rounding=rounding) for more in range(FINER)]
    return min(formats, key=lambda form: float((form.cast(sample) - sample).square().sum()))


def _coarsest(low: float, high: float, bits: int, signed: bool) -> int:
    """The most fraction bits with which all numbers from `low` to `high` have a code."""
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    reach = max(high / most if most else 0.0, low / least if least else 0.0)
    return 0 if reach == 0 else max(-60, min(60 - FINER, -math.ceil(math.log2(reach))))
