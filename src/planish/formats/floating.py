"""Binary floating-point numbers of any width up to float32."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from planish.errors import OptionError
from planish.formats.element import Element, Overflow
from planish.formats.rounding import Rounding, power_of_two, round_, two_to

Specials = Literal["ieee", "fn", "fnuz", "finite"]
"""`ieee`: infinities and NaN in the top exponent. `fn`: no infinity, NaN is all ones. `fnuz`: no infinity and no
negative zero, whose code is NaN. `finite`: neither; every code is a number."""


@dataclass(frozen=True)
class Float(Element):
    """Sign, exponent, mantissa, with subnormals.

    Attributes:
        exponent: 1 to 8.
        mantissa: 1 to 23.
        bias: What is subtracted from the exponent's code; by default `2**(e - 1) - 1`, one more for `fnuz`.
        specials: Which codes are not numbers.
    """

    exponent: int
    mantissa: int
    bias: int = None  # type: ignore[assignment]  # filled in below, so that equal elements compare equal
    specials: Specials = "ieee"
    bits: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.exponent <= 8:
            raise OptionError(f"a float has 1 to 8 exponent bits, not {self.exponent}", "exponent")
        if not 1 <= self.mantissa <= 23:
            hint = "Pow2 has no mantissa" if self.mantissa == 0 else ""
            raise OptionError(f"a float has 1 to 23 mantissa bits, not {self.mantissa}", "mantissa", hint)
        if self.specials not in get_args(Specials):
            raise OptionError(f"specials are one of {', '.join(get_args(Specials))}, not {self.specials!r}", "specials")
        if self.bias is None:
            object.__setattr__(self, "bias", 2 ** (self.exponent - 1) - (self.specials != "fnuz"))
        if self.specials == "ieee" and self.exponent == 1:
            raise OptionError("with IEEE specials one exponent bit leaves only subnormals", "specials", "'finite'")
        if self.emin < -126 or self.emax > 127:
            raise OptionError(
                f"bias {self.bias} gives numbers from 2**{self.emin} to 2**{self.emax + 1}; "
                "float32, in which Planish computes, ends at 2**-126 and 2**128",
                "bias",
            )
        object.__setattr__(self, "bits", 1 + self.exponent + self.mantissa)

    @property
    def emin(self) -> int:
        """The power of two of the lowest normal number."""
        return 1 - self.bias

    @property
    @override
    def emax(self) -> int:
        return 2**self.exponent - 1 - (self.specials == "ieee") - self.bias

    @property
    @override
    def maximum(self) -> float:
        missing = 2 if self.specials == "fn" else 1
        return 2.0**self.emax * (2.0 - missing * 2.0**-self.mantissa)

    @property
    @override
    def minimum(self) -> float:
        return -self.maximum

    @property
    @override
    def smallest(self) -> float:
        return 2.0 ** (self.emin - self.mantissa)

    @property
    @override
    def has_nan(self) -> bool:
        return self.specials != "finite"

    @property
    @override
    def overflows(self) -> tuple[Overflow, ...]:
        return ("saturate", "infinity") if self.has_nan else ("saturate",)

    @override
    def round_(
        self,
        x: Tensor,
        rounding: Rounding = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        all_of_float32 = x.dtype == torch.float32 and self == FLOAT32
        if all_of_float32 and overflow == "infinity":
            return x
        if not all_of_float32:
            step = power_of_two(x, 2.0**self.emin, 2.0**self.emax).mul_(2.0**-self.mantissa)
            x = round_(x.div_(step), rounding, generator).mul_(step)  # exact: step is a power of two
        if overflow == "infinity":
            beyond = torch.inf if self.specials == "ieee" else torch.nan
            x = torch.where(x.abs() > self.maximum, x.sign().mul_(beyond), x, out=x)
        else:
            x = x.clamp_(self.minimum, self.maximum)
        if self.specials == "fnuz":
            x = x.add_(0.0)
        return x if self.has_nan else x.nan_to_num_(nan=0.0)

    @override
    def to_codes(self, values: Tensor) -> Tensor:
        m, e = self.mantissa, self.exponent
        wide = values.dtype == torch.float64
        magnitude = values.abs() if wide else values.float().abs()
        word, fraction, bias = (torch.int64, 52, 1023) if wide else (torch.int32, 23, 127)
        code = (magnitude.view(word) >> (fraction - m)) - ((bias - self.bias) << m)
        subnormal = magnitude < 2.0**self.emin
        code = torch.where(subnormal, (magnitude / self.smallest).where(subnormal, 0.0).to(word), code)
        negative, nan = values.signbit(), values.isnan()
        match self.specials:
            case "ieee":
                top = ((1 << e) - 1) << m
                code = torch.where(magnitude.isinf(), top, code)
                code = torch.where(nan, top | (1 << (m - 1)), code)
            case "fn":
                code = torch.where(nan, (1 << (e + m)) - 1, code)
            case "fnuz":
                code, negative = torch.where(nan, 0, code), negative | nan
        return (code | (negative.to(word) << (e + m))).to(self.code_dtype)

    @override
    def from_codes(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        m, e = self.mantissa, self.exponent
        codes = codes.long()
        field, mantissa = (codes >> m) & ((1 << e) - 1), codes & ((1 << m) - 1)
        hidden = (field > 0).long() << m
        x = (hidden + mantissa) * two_to(field.clamp(min=1) - (self.bias + m))
        negative = (codes >> (e + m)) & 1 == 1
        match self.specials:
            case "ieee":
                top = field == (1 << e) - 1
                x = torch.where(top, torch.where(mantissa == 0, torch.inf, torch.nan), x)
            case "fn":
                x = torch.where((codes & ((1 << (e + m)) - 1)) == (1 << (e + m)) - 1, torch.nan, x)
            case "fnuz":
                x = torch.where(negative & (field == 0) & (mantissa == 0), torch.nan, x)
        return torch.where(negative, -x, x).to(dtype)


FLOAT32 = Float(8, 23)
FLOAT16 = Float(5, 10)
BFLOAT16 = Float(8, 7)
TF32 = Float(8, 10)
E5M2 = Float(5, 2)
E4M3 = Float(4, 3, specials="fn")
E3M2 = Float(3, 2, specials="finite")
E2M3 = Float(2, 3, specials="finite")
E2M1 = Float(2, 1, specials="finite")
