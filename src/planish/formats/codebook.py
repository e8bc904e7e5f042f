"""Numbers listed one by one."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from planish.errors import OptionError
from planish.formats.rounding import Rounding
from planish.formats.table import Table, middles


@dataclass(frozen=True)
class Codebook(Table):
    """The nearest of a list of numbers; the code is the place in the list.

    A tie goes to the lower number, or with the rounding "away" to the one farther from zero (from zero itself, up).

    Attributes:
        values: 2 to 256 finite numbers that float32 holds, rising.
    """

    values: tuple[float, ...]
    bits: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= len(self.values) <= 256:
            raise OptionError(f"a codebook has 2 to 256 numbers, not {len(self.values)}", "values")
        exact = torch.tensor(self.values, dtype=torch.float64).float().double().tolist()
        if not all(map(math.isfinite, self.values)) or exact != list(self.values):
            raise OptionError("a codebook holds finite float32 numbers", "values", "round them to float32 first")
        if any(a >= b for a, b in itertools.pairwise(self.values)):
            raise OptionError("the numbers of a codebook rise, without duplicates", "values", "sorted(set(values))")
        if self.values[-1] <= 0:
            raise OptionError("a codebook needs a positive number, to which the scale refers", "values")
        object.__setattr__(self, "bits", (len(self.values) - 1).bit_length())

    @property
    @override
    def numbers(self) -> tuple[float, ...]:
        return self.values

    @override
    def cuts(self, rounding: Rounding) -> tuple[float, ...]:
        return middles(self.values, rounding)

    @property
    @override
    def has_nan(self) -> bool:
        return False

    @override
    def to_codes(self, values: Tensor) -> Tensor:
        return self._place(values, "even").to(self.code_dtype)

    @override
    def from_codes(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.tensor(self.values, dtype=dtype, device=codes.device)[codes.long()]

    @property
    @override
    def grid(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64)


def _book(*values: float) -> Codebook:
    return Codebook(tuple(torch.tensor(values).double().tolist()))


# QLoRA (arXiv 2305.14314), appendix E
NF4 = _book(
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

# "NF4 Isn't Information Theoretically Optimal (and that's Good)" (arXiv 2306.06965), for blocks of 64
AF4 = _book(
    -1.0, -0.69441008, -0.51243739, -0.3736951, -0.25607552, -0.14982478, -0.04934812, 0.0, 0.04273164, 0.12934483,
    0.21961274, 0.31675666, 0.42563882, 0.55496234, 0.72424863, 1.0,
)  # fmt: skip
SIGN = Codebook((-1.0, 1.0))
