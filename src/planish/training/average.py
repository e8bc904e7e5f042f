"""A moving average of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class Average:
    """`value = decay * value + (1 - decay) * parameter`, after each step; the decay is less while it is young.

    Args:
        parameters: What to average.
        decay: Between 0 and 1.

    Attributes:
        values: The averages, float32 or wider.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self._parameters, self._decay, self._count = list(parameters), decay, 0
        self.values = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """After a step."""
        self._count += 1
        decay = min(self._decay, self._count / (self._count + 10))
        for value, parameter in zip(self.values, self._parameters, strict=True):
            value.lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Give the parameters their averages."""
        for parameter, value in zip(self._parameters, self.values, strict=True):
            parameter.copy_(value)

    def load(self, values: Sequence[Tensor], count: int) -> None:
        """Continue from those of a checkpoint, after `count` updates."""
        self.values, self._count = [v.to(mine.device) for v, mine in zip(values, self.values, strict=True)], count
