"""To which of its two neighbors a real number goes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from planish.errors import OptionError

Rounding = Literal["even", "away", "halfup", "down", "up", "stochastic", "log"]
"""Nearest with ties to even, nearest with ties away from zero, nearest with ties toward plus infinity (integers only),
toward minus infinity, toward plus infinity, up with the probability of the remainder, or (powers of two only) nearest
by logarithm."""


def round_(x: Tensor, rounding: Rounding, generator: torch.Generator | None = None) -> Tensor:
    """`x` rounded to whole numbers, overwriting `x`; NaN and infinities stay.

    Args:
        x: Any shape, float32 or float64.
        rounding: One of `Rounding`.
        generator: Where "stochastic" draws from; torch's global one by default.
    """
    match rounding:
        case "even":
            return x.round_()
        case "down":
            return x.floor_()
        case "up":
            return x.ceil_()
        case "away":  # floor(|x| + 0.5) would be wrong just below a half; the remainder below is exact
            whole = x.trunc()
            return whole.add_(x.sub_(whole).mul_(2.0).trunc_().nan_to_num_(nan=0.0))  # inf - inf is NaN
        case "halfup":
            whole = x.floor()
            return whole.add_(x.sub_(whole).mul_(2.0).trunc_().clamp_(max=1.0).nan_to_num_(nan=0.0))
        case "stochastic":
            return x.add_(torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)).floor_()
        case "log":
            raise OptionError("only powers of two are rounded by their logarithm", "rounding", "'even'")


def power_of_two(x: Tensor, low: float, high: float) -> Tensor:
    """The largest power of two not above `|x|`, clamped to `[low, high]`; NaN and infinities give `high`.

    Args:
        x: Any shape, float32 or float64; not changed.
        low: The smallest result, itself a power of two: what zero and smaller numbers give.
        high: The largest.
    """
    word, exponent = (torch.int64, 0x7FF << 52) if x.dtype == torch.float64 else (torch.int32, 0xFF << 23)
    return x.view(word).bitwise_and(exponent).view(x.dtype).clamp_(low, high)


def two_to(exponent: Tensor) -> Tensor:
    """`2**exponent` in float64, exact; int64 exponents from -1022 to 1023."""
    return ((exponent + 1023) << 52).view(torch.float64)
