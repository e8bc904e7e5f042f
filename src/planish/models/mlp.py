"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        widths: Features of the input, of each hidden layer, and of the output.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 64, 10)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, widths[0])` to `(batch, widths[-1])`."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)
