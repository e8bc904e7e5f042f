"""Posits: floating point whose exponent takes more bits the farther a number is from one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from typing_extensions import override

from planish.errors import OptionError
from planish.formats.element import Overflow
from planish.formats.rounding import Rounding
from planish.formats.table import Table, below


@dataclass(frozen=True)
class Posit(Table):
    """Posits of the Standard for Posit Arithmetic (2022), whose `es` is 2; earlier drafts had 0 and 1.

    Rounding is that of section 4.1: two neighbors part at the posit of one more bit that lies between them, a tie goes
    to the even pattern, finite numbers saturate, and none but zero becomes zero. An infinity becomes NaR, as NaN does.

    Attributes:
        bits: 3 to 8.
        es: Bits of the exponent field, 0 to 2.
    """

    bits: int = 8
    es: int = 2

    def __post_init__(self) -> None:
        if not 3 <= self.bits <= 8:
            raise OptionError(f"a posit has 3 to 8 bits, not {self.bits}", "bits")
        if not 0 <= self.es <= 2:
            raise OptionError(f"a posit has 0 to 2 exponent bits, not {self.es}", "es")

    @property
    @override
    def numbers(self) -> tuple[float, ...]:
        return _numbers(self.bits, self.es)

    @override
    def cuts(self, rounding: Rounding) -> tuple[float, ...]:
        return _cuts(self.bits, self.es)

    @property
    @override
    def has_nan(self) -> bool:
        return True

    @property
    @override
    def roundings(self) -> tuple[Rounding, ...]:
        return ("even",)

    @override
    def round_(
        self,
        x: Tensor,
        rounding: Rounding = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return torch.where(x.isfinite(), super().round_(x, rounding), torch.nan)

    @override
    def to_codes(self, values: Tensor) -> Tensor:
        code = self._place(values, "even") - (len(self.numbers) // 2)  # two's complement, as posits are compared
        code = torch.where(values.isnan(), 1 << (self.bits - 1), code & ((1 << self.bits) - 1))
        return code.to(self.code_dtype)

    @override
    def from_codes(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        half = 1 << (self.bits - 1)
        numbers = torch.tensor((torch.nan, *self.numbers), dtype=dtype, device=codes.device)
        return numbers[codes.long() + half & (2 * half - 1)]


def _value(pattern: int, bits: int, es: int) -> float:
    """The number of a positive pattern: sign, regime, exponent, fraction (section 3.4)."""
    body = [pattern >> place & 1 for place in reversed(range(bits - 1))]
    run = next((n for n, bit in enumerate(body) if bit != body[0]), len(body))
    rest = body[run + 1 :]
    exponent = sum(bit << (es - 1 - place) for place, bit in enumerate(rest[:es]))  # bits that are cut off are zero
    fraction = sum(bit * 2.0 ** -(place + 1) for place, bit in enumerate(rest[es:]))
    regime = run - 1 if body[0] else -run
    return 2.0 ** (regime * 2**es + exponent) * (1.0 + fraction)


@lru_cache
def _numbers(bits: int, es: int) -> tuple[float, ...]:
    positive = [_value(pattern, bits, es) for pattern in range(1, 1 << (bits - 1))]
    return (*(-v for v in reversed(positive)), 0.0, *positive)


@lru_cache
def _cuts(bits: int, es: int) -> tuple[float, ...]:
    # a cut holds what goes down: of a tie, the number with the odd pattern gives way
    between = [(_value(2 * p + 1, bits + 1, es), p % 2) for p in range(1, (1 << (bits - 1)) - 1)]
    up = [below(cut) if odd else cut for cut, odd in between]
    down = [-cut if odd else below(-cut) for cut, odd in reversed(between)]
    return (*down, below(0.0), 0.0, *up)
