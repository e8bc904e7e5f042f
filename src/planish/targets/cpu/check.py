"""Does an engine compute what the graph says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """How far results are from the graph's.

    Attributes:
        relative: Norm of the difference over the norm of the graph's own result; 0 is equal.
        largest: Largest absolute difference of one number.
    """

    relative: float
    largest: float


def difference(results: Sequence[Tensor], wanted: Sequence[Tensor]) -> Difference:
    """Over all results together. Other shapes, or NaN where there should be none, are infinitely far."""
    error = total = largest = 0.0
    if len(results) != len(wanted):
        return Difference(float("inf"), float("inf"))
    for result, want in zip(results, wanted, strict=True):
        if result.shape != want.shape:
            return Difference(float("inf"), float("inf"))
        gap = result.double() - want.double()
        gap[result == want.to(result.dtype)] = 0.0  # equal infinities
        if gap.numel() == 0:
            continue
        if bool(gap.isnan().any()):
            return Difference(float("inf"), float("inf"))
        error += float(gap.square().sum())
        total += float(torch.nan_to_num(want.double()).square().sum())
        largest = max(largest, float(gap.abs().max()))
    return Difference((error / total) ** 0.5 if total else error**0.5, largest)
