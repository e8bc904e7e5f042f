"""Rounding as modules: how `Quantize` stands beside other options while a supernet trains."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from planish.compress.ranges import find_range
from planish.compress.sites import static_shape
from planish.formats import Format
from planish.graph import Candidate, Node, cast
from planish.graph.shapes import example

MOMENTUM = 0.1
"""How far the range of an activation moves towards that of a batch."""


class RoundWeight(nn.Module):
    """A weight rounded to a format whose scales follow the weight; its gradient passes straight through.

    Args:
        format: With its block chosen.
    """

    def __init__(self, format: Format) -> None:
        super().__init__()
        self.format = format

    def forward(self, weight: Tensor) -> Tensor:
        """Any shape to the same."""
        return cast(weight, self.format, self.format.parameters(weight.detach()))


class RoundActivation(nn.Module):
    """An activation rounded to a format; a static range is an average over the batches that it was trained on.

    Args:
        format: With its block chosen.
        value: Tells the shape of its scales.
    """

    def __init__(self, format: Format, value: Tensor) -> None:
        super().__init__()
        self.format = format
        self.static = format.scale is not None and not format.is_dynamic
        shape = format.scale_shape(value.shape) if self.static else ()
        self.register_buffer("range", torch.full((2, *shape), torch.nan))
        self.range: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if not self.static:
            return cast(x, self.format, ())
        if self.training or bool(self.range.isnan().any()):
            found = torch.stack(find_range([x.detach()], self.format, "minmax", 100.0, "activation"))
            fresh = bool(self.range.isnan().any())
            self.range.copy_(found if fresh else torch.lerp(self.range, found, MOMENTUM))
        low, high = self.range
        return cast(x, self.format, self.format.parameters(low=low, high=high))


def weight(layer: Node, format: Format) -> Candidate:
    """The rounding of what a layer reads as its weight."""
    source = layer.weight
    assert source is not None, "a layer with a weight"
    return Candidate(source.name, (source.name,), RoundWeight(format), (layer.name,))


def activation(source: Node, format: Format, readers: Iterable[Node]) -> Candidate:
    """The rounding of an activation that some operations read.

    Raises:
        OptionError: The format's static scales would serve one batch only.
    """
    if format.scale is not None and not format.is_dynamic:
        static_shape(format, source.value.shape, source.path or source.name)
    rounding = RoundActivation(format, example(source))
    return Candidate(source.name, (source.name,), rounding, tuple(reader.name for reader in readers))
