"""What one stored number can be: the interface of all element families."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from planish.formats.rounding import Rounding

Overflow = Literal["saturate", "infinity"]
"""A number beyond the largest becomes the largest, or infinity (NaN where the element has no infinity)."""
Nan = Literal["keep", "zero", "max"]
"""NaN stays NaN, or becomes zero (the number nearest to it), or the largest number, as NVIDIA's saturating conversions
to FP4 and FP6 do."""


class Element(ABC):
    """A finite set of real numbers, each with an integer code.

    Concrete elements are frozen dataclasses; their fields are the whole definition. Tensors passed to `round_` are
    float32 or float64, and float64 where `wide`.

    Attributes:
        bits: Bits of one code.
    """

    bits: int

    @property
    @abstractmethod
    def minimum(self) -> float:
        """The lowest finite number."""

    @property
    @abstractmethod
    def maximum(self) -> float:
        """The highest finite number."""

    @property
    @abstractmethod
    def smallest(self) -> float:
        """The smallest positive number."""

    @property
    @abstractmethod
    def has_nan(self) -> bool:
        """Whether a code stands for NaN."""

    @property
    def overflows(self) -> tuple[Overflow, ...]:
        """The accepted values of a format's `overflow`."""
        return ("saturate",)

    @property
    def nans(self) -> tuple[Nan, ...]:
        """The accepted values of a format's `nan`, the usual one first."""
        return ("keep", "zero", "max") if self.has_nan else ("zero", "max")

    @property
    def roundings(self) -> tuple[Rounding, ...]:
        """The accepted values of a format's `rounding`."""
        return ("even", "away", "down", "up", "stochastic")

    @property
    def wide(self) -> bool:
        """Whether float32 cannot hold every number of the element exactly."""
        return False

    @property
    def code_dtype(self) -> torch.dtype:
        """The tensor type of the codes: the bit pattern, unsigned up to 8 bits."""
        return torch.uint8 if self.bits <= 8 else torch.int32

    @property
    def emax(self) -> int:
        """The power of two of the highest number (OCP MX calls it emax)."""
        return math.frexp(self.maximum)[1] - 1

    @abstractmethod
    def round_(
        self,
        x: Tensor,
        rounding: Rounding = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Replace each number of `x` by one of the element's, in place where possible; returns the result.

        NaN stays where the element has it, and otherwise becomes zero.
        """

    @abstractmethod
    def to_codes(self, values: Tensor) -> Tensor:
        """The codes, of type `code_dtype`, of numbers that are already the element's own."""

    @abstractmethod
    def from_codes(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers, of floating-point type `dtype`, that the codes stand for."""

    def from_bits(self, pattern: Tensor) -> Tensor:
        """The codes, of type `code_dtype`, of patterns of `bits` bits (int64)."""
        return pattern.to(self.code_dtype)

    @property
    def grid(self) -> Tensor:
        """The number of every code, in code order, float64."""
        return self.from_codes(torch.arange(2**self.bits), torch.float64)
