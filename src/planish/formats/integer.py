"""Integers and fixed-point numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from planish.errors import OptionError
from planish.formats.element import Element, Overflow
from planish.formats.rounding import Rounding, round_


@dataclass(frozen=True)
class Int(Element):
    """An integer times a fixed power of two; the code is the integer, in two's complement where signed.

    Attributes:
        bits: Bits of the code, 1 to 32.
        frac: Bits after the binary point: a code `c` stands for `c * 2**-frac`.
        signed: Whether there are negative numbers.
        narrow: Leave the lowest code out, so that the numbers are symmetric about zero; signed only.
    """

    bits: int
    frac: int = 0
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise OptionError(f"an integer has 1 to 32 bits, not {self.bits}", "bits")
        if not -64 <= self.frac <= 64:
            raise OptionError(f"a binary point moves by at most 64 bits, not {self.frac}", "frac")
        if self.narrow and not self.signed:
            raise OptionError("an unsigned integer has no narrow range", "narrow", "narrow=False, or signed=True")
        if self.narrow and self.bits < 2:
            raise OptionError("a narrow integer needs 2 bits or more", "bits", "bits=2")

    @property
    def lowest(self) -> int:
        """The lowest code."""
        return -(1 << (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def highest(self) -> int:
        """The highest code."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    @override
    def minimum(self) -> float:
        return self.lowest * 2.0**-self.frac

    @property
    @override
    def maximum(self) -> float:
        # one signed bit holds -1 and 0: its reach is that of its lowest code
        return (self.highest or -self.lowest) * 2.0**-self.frac

    @property
    @override
    def smallest(self) -> float:
        return 2.0**-self.frac

    @property
    @override
    def has_nan(self) -> bool:
        return False

    @property
    @override
    def roundings(self) -> tuple[Rounding, ...]:
        return (*super().roundings, "halfup")

    @property
    @override
    def wide(self) -> bool:
        return self.bits > 24

    @property
    @override
    def code_dtype(self) -> torch.dtype:
        if not self.signed:
            return torch.uint8 if self.bits <= 8 else torch.int32 if self.bits < 32 else torch.int64
        return torch.int8 if self.bits <= 8 else torch.int16 if self.bits <= 16 else torch.int32

    @override
    def round_(
        self,
        x: Tensor,
        rounding: Rounding = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
        zero: Tensor | None = None,
    ) -> Tensor:
        """As `Element.round_`; with `zero`, codes are shifted by it before they are clamped and back after."""
        x = round_(x.mul_(2.0**self.frac) if self.frac else x, rounding, generator)
        x = x.nan_to_num_(nan=0.0).add_(0.0 if zero is None else zero)  # + 0.0 turns -0.0 into 0.0, as codes do
        x = x.clamp_(self.lowest, self.highest)
        if zero is not None:
            x = x.sub_(zero)
        return x.mul_(2.0**-self.frac) if self.frac else x

    @override
    def to_codes(self, values: Tensor) -> Tensor:
        return (values * 2.0**self.frac if self.frac else values).to(self.code_dtype)

    @override
    def from_codes(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        return codes.to(dtype).mul_(2.0**-self.frac)

    @override
    def from_bits(self, pattern: Tensor) -> Tensor:
        if self.signed:
            pattern = pattern - ((pattern >> (self.bits - 1) & 1) << self.bits)
        return pattern.to(self.code_dtype)

    @property
    @override
    def grid(self) -> Tensor:
        return torch.arange(self.lowest, self.highest + 1, dtype=torch.float64).mul_(2.0**-self.frac)
