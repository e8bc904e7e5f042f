"""From the range of the numbers in a block to its scale."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from planish.formats.block import Block
from planish.formats.element import Element
from planish.formats.integer import Int
from planish.formats.pow2 import Pow2

if TYPE_CHECKING:
    from planish.formats.format import Format

Rule = Literal["absmax", "floor", "ceil", "peak", "mean", "twn", "mse"]
"""What decides the scale of a block.

`absmax`: the largest number of the block meets the element's largest. `ceil`: as absmax, the scale rounded up, so that
nothing saturates. `floor`: their powers of two meet, and larger mantissas saturate (OCP MX 1.0, section 6.3). `peak`:
the number of largest magnitude meets the element's lowest; the scale takes its sign (ggml). `mean`: the mean magnitude
meets 1. `twn`: so does the mean of the magnitudes above 0.7 times the mean (Ternary Weight Networks, arXiv 1605.04711).
`mse`: the least squared error, of `SHRINK` times absmax or, where scales are powers of two, of all near absmax."""

SHRINK = tuple(1.0 - step / 50 for step in range(36))
POWERS = (2.0, 1.0, 0.5, 0.25)
OF_THE_NUMBERS: tuple[Rule, ...] = ("mse", "mean", "twn")
"""Rules for which the range of a block is not enough."""


def ranges(x: Tensor, block: Block, both: bool) -> tuple[Tensor, Tensor]:
    """The lowest and the highest number of each block, in `block.scale_shape(x.shape)`, float32 or float64.

    Args:
        x: Any shape, floating point.
        block: Which numbers share a range.
        both: Whether both ends are wanted; if not, the range is symmetric, `(-m, m)` with `m` the largest magnitude.
    """
    shape = block.scale_shape(x.shape)
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    if x.numel() == 0:
        return torch.zeros(shape, dtype=kind, device=x.device), torch.zeros(shape, dtype=kind, device=x.device)
    axes, parts = block.inner_axes(x), block.split(x)
    if not shape:
        low, high = torch.aminmax(parts)
    elif not axes:
        low = high = parts
    elif both:
        low, high = parts.amin(axes), parts.amax(axes)
    else:
        high = parts.abs().amax(axes)
        low = -high
    low, high = low.to(kind).reshape(shape), high.to(kind).reshape(shape)
    return (low, high) if both else _symmetric(low, high)


def raw_scale(low: Tensor, high: Tensor, element: Element, rule: Rule, affine: bool) -> Tensor:
    """The scale of each block before it is rounded to the scale's own format; zero where the block is all zero."""
    if affine:
        assert isinstance(element, Int)
        return (high.clamp(min=0.0) - low.clamp(max=0.0)) / (element.highest - element.lowest)
    magnitude = _symmetric(low, high)[1] if element.minimum < 0 else high.clamp(min=0.0)
    reach = {"floor": 2.0**element.emax, "peak": -element.minimum}.get(rule, element.maximum)
    scale = torch.maximum(magnitude / reach, magnitude.clamp(max=2.0**-149))  # an underflow is not a block of zeros
    return torch.where(high > -low, -scale, scale) if rule == "peak" else scale


def jumps(format: Format) -> bool:
    """Whether scales are powers of two, few enough to try all that can be best."""
    return format.scale is not None and isinstance(format.scale.element, Pow2) and format.scale.scale is None


def typical(x: Tensor, block: Block, rule: Rule) -> Tensor:
    """The scale of each block by the rules "mean" and "twn", float32; zero where the block is all zero."""
    magnitude = x.double().abs()
    mean = block.sum(magnitude) / block.sum(torch.ones_like(magnitude)).clamp_(min=1.0)
    if rule == "twn":
        large = block.split(magnitude) > 0.7 * block.spread(mean, x.shape)
        magnitude = magnitude * (large := block.join(large, x.shape))
        mean = block.sum(magnitude) / block.sum(large.double()).clamp_(min=1.0)
    limit = torch.finfo(torch.float32)
    return torch.maximum(mean, block.sum(magnitude).clamp(max=limit.smallest_normal)).clamp(max=limit.max).float()


def clamp_scale_(scale: Tensor, element: Element, signed: bool = False) -> Tensor:
    """Finite scales that are not zero, above zero unless `signed`; of a float32 scale only the normal ones, so that an
    engine that flushes subnormal numbers does not divide by zero. The lowest power of two of E8M0 stays, as OCP MX
    wants it."""
    smallest = element.smallest if element.smallest >= 2.0**-127 else 2.0**-126
    if signed:
        scale = scale.clamp_(element.minimum, element.maximum)
        return torch.where(scale.abs() < smallest, smallest, scale)
    scale = scale.clamp_(smallest, element.maximum)
    return scale.masked_fill_(scale.isnan(), torch.nan)  # of one sign, since codes show it


def zero_point(low: Tensor, scale: Tensor, element: Int, dtype: Int) -> Tensor:
    """The code of zero, an integer of `dtype`, such that `low` meets the lowest code."""
    zero = (element.lowest - low.clamp(max=0.0) / scale).round_()
    bounds = max(element.lowest, dtype.lowest), min(element.highest, dtype.highest)
    return zero.nan_to_num_(nan=0.0).clamp_(*bounds).to(dtype.code_dtype)


def _symmetric(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    magnitude = torch.maximum(-low, high)
    return -magnitude, magnitude
