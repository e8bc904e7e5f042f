"""Inputs that catch a wrong rounding, and roundings spelled out from the definition, one number at a time."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from planish.formats import Element

COUNT = 2_000_000


def patterns(element: Element, count: int = COUNT, seed: int = 0) -> Tensor:
    """`count` float32: all bfloat16 patterns; each number, midpoint and three-quarter point of the element with the
    next float32 on both sides, by either sign; subnormals; and random bit patterns, infinities and NaN among them."""
    coarse = torch.arange(1 << 16).to(torch.int32).bitwise_left_shift(16).view(torch.float32)
    grid = element.grid[element.grid.isfinite()].sort().values
    between = [grid[1:] * share + grid[:-1] * (1 - share) for share in (0.25, 0.5, 0.75)]
    points = torch.cat([grid, *between, grid[-1:] * 1.5, grid[-1:] * 2]).float()
    near = [torch.nextafter(points, torch.tensor(end)) for end in (torch.inf, -torch.inf)]
    points = torch.cat([points, *near])
    random = np.random.default_rng(seed)
    bits = random.integers(0, 1 << 32, count, dtype=np.uint32)
    bits[::7] &= 0x807FFFFF  # subnormals
    bits[1::7] = bits[1::7] & 0x83FFFFFF | 0x3C000000  # from 2**-7 to 4
    fill = torch.from_numpy(bits.view(np.float32))
    return torch.cat([coarse, points, -points, fill])[:count]


def nearest(x: float, grid: list[float], codes: list[int]) -> float:
    """The nearest of `grid` by exact arithmetic, a tie to the even code; what is beyond goes to the end."""
    return nearest_fraction(Fraction(x), grid, codes)


def nearest_fraction(exact: Fraction, grid: list[float], codes: list[int]) -> float:
    """As `nearest`, of a fraction."""
    place = bisect_left(grid, exact)
    near = range(max(0, place - 1), min(len(grid), place + 1))
    return grid[min(near, key=lambda n: (abs(Fraction(grid[n]) - exact), codes[n] % 2))]


def posit_value(pattern: int, bits: int, es: int) -> Fraction | None:
    """Standard for Posit Arithmetic (2022), section 3.4: `((1 - 3s) + f) * 2**((1 - 2s) * (2**es * r + e + s))`."""
    if pattern == 0:
        return Fraction(0)
    if pattern == 1 << (bits - 1):
        return None
    text = format(pattern, f"0{bits}b")
    s, body = int(text[0]), text[1:]
    k = len(body) - len(body.lstrip(body[0]))
    r = -k if body[0] == "0" else k - 1
    rest = body[k + 1 :]
    e = int(rest[:es].ljust(es, "0") or "0", 2)
    fraction = rest[es:]
    f = Fraction(int(fraction, 2), 1 << len(fraction)) if fraction else Fraction(0)
    return ((1 - 3 * s) + f) * Fraction(2) ** ((1 - 2 * s) * (2**es * r + e + s))


def posit_code(x: float, bits: int, es: int) -> int:
    """Section 4.1, by bits: write the whole posit of `x`, cut it after `bits`, round to even by what is cut off."""
    if not np.isfinite(x):
        return 1 << (bits - 1)
    if x == 0:
        return 0
    mantissa, exponent = math.frexp(abs(x))
    exact, power = Fraction(mantissa * 2), exponent - 1
    r, e = divmod(power, 2**es)
    whole = "0" + ("1" * (r + 1) + "0" if r >= 0 else "0" * -r + "1") + (format(e, f"0{es}b") if es else "")
    exact -= 1
    while exact:
        exact *= 2
        whole, exact = whole + ("1" if exact >= 1 else "0"), exact - (exact >= 1)
    whole = whole.ljust(bits + 2, "0")
    kept, cut = int(whole[:bits], 2), whole[bits:]
    up = cut[0] == "1" and ("1" in cut[1:] or kept % 2 == 1)
    kept = min(max(kept + up, 1), (1 << (bits - 1)) - 1)  # never to zero, never to NaR
    return kept if x > 0 else (1 << bits) - kept
