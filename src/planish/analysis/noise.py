"""Signal to noise ratio, summed over as many tensors as one likes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

CEILING = 200.0
"""Decibels of no difference at all: beyond what float32 can tell apart, and still a number."""


class Noise:
    """Adds up the energy of a signal and of its difference from another."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, exact: Any, actual: Any) -> None:
        """Count one tensor; passes over what is not floating point, and over infinities in `exact`."""
        if not isinstance(exact, Tensor) or not exact.is_floating_point() or not isinstance(actual, Tensor):
            return
        reference = exact.double()
        known = torch.isfinite(reference)
        if not bool(known.all()):
            reference, actual = reference[known], actual[known]
        self.signal += float(reference.square().sum())
        self.noise += float((actual.double() - reference).square_().sum())

    def add_all(self, exact: Iterable[Any], actual: Iterable[Any]) -> None:
        """Count several tensors."""
        for one, other in zip(exact, actual, strict=True):
            self.add(one, other)

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise in dB, at most `CEILING`; where the noise is not a number, minus that."""
        if math.isnan(self.noise) or math.isinf(self.noise):
            return -CEILING
        if self.noise <= self.signal * 10 ** (-CEILING / 10):
            return CEILING
        return max(-CEILING, 10 * math.log10(self.signal / self.noise)) if self.signal else -CEILING
