"""Elements whose numbers are listed rather than computed."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from planish.formats.element import Element, Overflow
from planish.formats.rounding import Rounding


class Table(Element):
    """Finitely many numbers, rising, and between each two of them a cut: what lies at or below it goes down."""

    @property
    @abstractmethod
    def numbers(self) -> tuple[float, ...]:
        """The finite numbers, rising; float32 holds each."""

    @abstractmethod
    def cuts(self, rounding: Rounding) -> tuple[float, ...]:
        """Where nearest rounding parts neighbors; float64, one fewer than `numbers`."""

    @property
    @override
    def minimum(self) -> float:
        return self.numbers[0]

    @property
    @override
    def maximum(self) -> float:
        return self.numbers[-1]

    @property
    @override
    def smallest(self) -> float:
        return next(v for v in self.numbers if v > 0)

    def _place(self, x: Tensor, rounding: Rounding, generator: torch.Generator | None = None) -> Tensor:
        """The index in `numbers` of each of `x`; float64 decides, since it holds every midpoint of float32 numbers."""
        x = x.double().contiguous()
        if rounding in ("even", "away"):
            return torch.bucketize(x, torch.tensor(self.cuts(rounding), dtype=torch.float64, device=x.device))
        numbers = torch.tensor(self.numbers, dtype=torch.float64, device=x.device)
        above = torch.bucketize(x, numbers).clamp_(max=len(numbers) - 1)
        below = torch.bucketize(x, numbers, right=True).sub_(1).clamp_(min=0)
        if rounding in ("up", "down"):
            return above if rounding == "up" else below
        share = (x - numbers[below]) / (numbers[above] - numbers[below])  # 0/0 on a number itself: either is right
        return torch.where(share > torch.rand(x.shape, generator=generator, device=x.device), above, below)

    @override
    def round_(
        self,
        x: Tensor,
        rounding: Rounding = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        numbers = torch.tensor(self.numbers, dtype=x.dtype, device=x.device)
        return numbers[self._place(x.nan_to_num(nan=0.0), rounding, generator)]


def middles(numbers: tuple[float, ...], rounding: Rounding) -> tuple[float, ...]:
    """Half-way between neighbors. A tie goes to the lower number, or away from zero (from zero itself, up)."""
    between = ((a + b) / 2 for a, b in itertools.pairwise(numbers))
    return tuple(below(m) if rounding == "away" and m >= 0 else m for m in between)


def below(cut: float) -> float:
    """The float64 number just below: what lies at `cut` now goes up."""
    return math.nextafter(cut, -math.inf)
