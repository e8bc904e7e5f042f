"""From the numbers of a tensor to the parameters of a format."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planish.formats.block import TENSOR
from planish.formats.integer import Int
from planish.formats.parameters import Given, Parameters, split
from planish.formats.pow2 import Pow2
from planish.formats.scaling import OF_THE_NUMBERS, POWERS, SHRINK, clamp_scale_, raw_scale, typical, zero_point

if TYPE_CHECKING:
    from planish.formats.format import Format


def fit(format: Format, low: Tensor, high: Tensor, x: Tensor | None) -> Parameters:
    """The parameters of `format`, in the order of its `levels`.

    Args:
        format: Has a scale, a residual, or both.
        low: The lowest number of each block, finite, in `format.scale_shape(x.shape)`.
        high: The highest.
        x: The tensor; only a residual and the rules `OF_THE_NUMBERS` look at it.
    """
    own = format if format.residual is None else replace(format, residual=None)
    if own.scale is None:
        given: Parameters = ()
    elif own.rule == "mse" and x is not None and x.numel():
        given = _least_error(own, low, high, x)
    else:
        given = _by_rule(own, low, high, x)
    if format.residual is None:
        return given
    assert x is not None
    return given + format.residual._measure(x.to(format._kind(x)) - own._cast(x, given))


def _least_error(format: Format, low: Tensor, high: Tensor, x: Tensor) -> Parameters:
    """Of all trials, for each block the one with the least squared error."""
    block, exact = format.block or TENSOR, x.to(format._kind(x))
    best = split(format, _by_rule(format, low, high, x))
    least = None
    for shrink in POWERS if _jumps(format) else SHRINK:  # what is above scales and offsets stays that of the full range
        trial = split(format, _by_rule(format, low * shrink, high * shrink, x, best))
        error = block.sum((format._cast(x, trial.flat) - exact).square_())
        better = torch.ones_like(error, dtype=torch.bool) if least is None else error < least
        least = error if least is None else torch.where(better, error, least)
        best = best.chosen(trial, better)
    return best.flat


def _by_rule(format: Format, low: Tensor, high: Tensor, x: Tensor | None, kept: Given | None = None) -> Parameters:
    """Offset, scale and zero point of one range; `kept` has the parameters of their own scales."""
    scale, offset, block = format.scale, (), format.block or TENSOR
    assert scale is not None
    if format.offset is not None:
        raw = (-low).float()
        above = kept.offset[1:] if kept else format.offset._measure(raw)
        level = format.offset._grid(raw, above)
        offset = (level, *above)
        shift = format.offset._value(level, above)
        low, high = torch.zeros_like(low), high + shift
    if format.rule in OF_THE_NUMBERS and format.rule != "mse":
        assert x is not None
        raw = typical(x, block, format.rule)
    else:
        raw = raw_scale(low, high, format.element, format.rule, format.is_affine).float()
    if format.rule in ("floor", "ceil"):
        scale = replace(scale, rounding="down" if format.rule == "floor" else "up")
    elif format.rule == "mse" and _jumps(format):
        scale = replace(scale, rounding="down")
    if scale.scale is None:
        raw = torch.where(raw == 0, 1.0, raw)  # a block of zeros: any scale will do, one does no harm in an engine
    above = () if scale.scale is None else kept.above if kept else scale._measure(raw)
    level = scale._grid(raw, above)
    if format.rule == "peak":
        level = clamp_scale_(level.abs(), scale.element).copysign_(raw)
    else:
        level = clamp_scale_(level, scale.element)
    if format.zero_point is None:
        return level, *above, *offset
    assert isinstance(format.element, Int)
    return level, zero_point(low, scale._value(level, above), format.element, format.zero_point), *above


def _jumps(format: Format) -> bool:
    """Whether scales are powers of two, few enough to try all that can be best."""
    return format.scale is not None and isinstance(format.scale.element, Pow2) and format.scale.scale is None
