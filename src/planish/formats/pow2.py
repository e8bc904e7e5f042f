"""Powers of two: shared exponents, and logarithmic numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from planish.errors import OptionError
from planish.formats.element import Element, Overflow
from planish.formats.rounding import Rounding, power_of_two, two_to


@dataclass(frozen=True)
class Pow2(Element):
    """A power of two, with a sign and a zero if asked for. Numbers outside the range saturate.

    The code is `sign | exponent + bias`; the lowest exponent code is zero where `zero`, the highest NaN where `nan`.
    Rounding is by value: 1.5 lies half-way between 1 and 2, and goes to the even code; with "log" it is by logarithm,
    and the square root of 2 lies half-way.

    Attributes:
        exponent: 2 to 8.
        bias: What is subtracted from the exponent's code; by default `2**(e - 1) - 1`.
        signed: Whether there are negative numbers.
        zero: Whether zero has a code; without it, zero becomes the smallest power.
        nan: Whether NaN has a code; without it, NaN becomes zero (or the smallest power).
    """

    exponent: int = 8
    bias: int = None  # type: ignore[assignment]  # filled in below, so that equal elements compare equal
    signed: bool = False
    zero: bool = False
    nan: bool = True
    bits: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= self.exponent <= 8:
            raise OptionError(f"a power of two has 2 to 8 exponent bits, not {self.exponent}", "exponent")
        if self.bias is None:
            object.__setattr__(self, "bias", 2 ** (self.exponent - 1) - 1)
        if self.emin < -127 or self.emax > 127:
            raise OptionError(
                f"bias {self.bias} gives powers from {self.emin} to {self.emax}; float32, in which "
                "Planish computes, has -127 to 127",
                "bias",
            )
        object.__setattr__(self, "bits", self.exponent + self.signed)

    @property
    def emin(self) -> int:
        """The lowest power of two."""
        return self.zero - self.bias

    @property
    @override
    def emax(self) -> int:
        return 2**self.exponent - 1 - self.nan - self.bias

    @property
    @override
    def maximum(self) -> float:
        return 2.0**self.emax

    @property
    @override
    def minimum(self) -> float:
        return -self.maximum if self.signed else 0.0 if self.zero else self.smallest

    @property
    @override
    def smallest(self) -> float:
        return 2.0**self.emin

    @property
    @override
    def has_nan(self) -> bool:
        return self.nan

    @property
    @override
    def roundings(self) -> tuple[Rounding, ...]:
        return (*super().roundings, "log")

    @override
    def round_(
        self,
        x: Tensor,
        rounding: Rounding = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        nan, negative = x.isnan(), x.signbit() & self.signed
        magnitude = x.abs() if self.signed else x.clamp(min=0.0)
        power = power_of_two(magnitude, self.smallest, self.maximum)
        rest = magnitude / power  # 1 to 2 inside the range, less than 1 below it
        match rounding:
            case "even":
                odd = torch.frexp(power).exponent - 1 + self.bias & 1 == 1
                up, stays = (rest > 1.5) | ((rest == 1.5) & odd), rest > 0.5
            case "away":
                up, stays = rest >= 1.5, rest >= 0.5
            case "log":  # the square roots of 2 and of 1/2, rounded down so that float64 compares right
                up, stays = rest > 1.414213562373095, rest > 0.7071067811865475
            case "down":  # toward minus infinity: the larger magnitude of a negative number
                up, stays = (rest > 1.0) & negative, (rest > 0.0) & negative
            case "up":
                up, stays = (rest > 1.0) & ~negative, (rest > 0.0) & ~negative
            case "stochastic":
                chance = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
                up, stays = rest - 1.0 > chance, rest > chance
            case "halfup":
                raise ValueError('powers of two do not round "halfup": its half is between equal steps')
        power = torch.where(up, power * 2.0, power).clamp_(max=self.maximum)
        if self.zero:
            power = torch.where((rest < 1.0) & ~stays, 0.0, power)
            negative &= power > 0
        if self.signed:
            power = torch.where(negative, -power, power)
        return torch.where(nan, torch.nan if self.nan else (0.0 if self.zero else self.smallest), power)

    @override
    def to_codes(self, values: Tensor) -> Tensor:
        code = torch.frexp(values.double().abs()).exponent.long() - 1 + self.bias
        if self.zero:
            code = torch.where(values == 0, 0, code)
        code |= (values < 0).long() << self.exponent
        return torch.where(values.isnan(), (1 << self.exponent) - 1, code).to(self.code_dtype)

    @override
    def from_codes(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        codes = codes.long()
        field = codes & ((1 << self.exponent) - 1)
        x = two_to(field - self.bias)
        if self.zero:
            x = torch.where(field == 0, 0.0, x)
        if self.nan:
            x = torch.where(field == (1 << self.exponent) - 1, torch.nan, x)
        return torch.where(codes >> self.exponent & 1 == 1, -x, x).to(dtype)


E8M0 = Pow2(8)
