"""From the numbers of a tensor to the parameters of a format."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planish.errors import DataError, OptionError
from planish.formats.block import TENSOR
from planish.formats.integer import Int
from planish.formats.kernels import ranges
from planish.formats.lut import Lut, fit_codebooks
from planish.formats.parameters import Given, Parameters, split
from planish.formats.scaling import (
    OF_THE_NUMBERS,
    POWERS,
    SHRINK,
    clamp_scale_,
    jumps,
    raw_scale,
    typical,
    zero_point,
)

if TYPE_CHECKING:
    from planish.formats.format import Format


def fit(format: Format, x: Tensor | None, low: Tensor | None, high: Tensor | None) -> Parameters:
    """The parameters of `format`, in the order of its `levels`, from a tensor or from the ranges of its blocks.

    Raises:
        DataError: NaN or an infinity in what is given.
        OptionError: Neither is given; or a rule or a residual that looks at the numbers has only their range.
    """
    if x is not None:
        low, high = ranges(x, format.block or TENSOR, _both_ends(format))
    elif low is None or high is None:
        raise OptionError("parameters need a tensor, or both low and high", "parameters", "parameters(x)")
    elif format.rule in OF_THE_NUMBERS or format.residual is not None:
        what, field = (f"the {format.rule} rule", "rule") if format.residual is None else ("a residual", "residual")
        raise OptionError(f"{what} looks at the numbers, their range is not enough", field, "parameters(x)")
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        raise DataError(f"NaN or infinity in the numbers that decide the scale of {format}", hint="clean the data")
    return _fit(format, low, high, x)


def fit_any(format: Format, x: Tensor) -> Parameters:
    """As `fit`, of any tensor: an infinity counts as the largest float32, and NaN gives a NaN scale."""
    return _fit(format, *ends(format, x), x)


def ends(format: Format, x: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and highest number of each block, as far as the format's rule looks at them; both finite, or NaN."""
    low, high = ranges(x, format.block or TENSOR, _both_ends(format))
    bound = torch.finfo(torch.float32).max
    return low.clamp(-bound, bound), high.clamp(-bound, bound)


def fit_ends(format: Format, low: Tensor, high: Tensor) -> Parameters | None:
    """As `fit_any`, of what `ends` gives; None where the numbers between decide, too."""
    looks = format.rule in OF_THE_NUMBERS or format.residual is not None or isinstance(format.element, Lut)
    return None if looks else _fit(format, low, high, None)


def _both_ends(format: Format) -> bool:
    return format.is_affine or format.element.minimum >= 0 or format.rule == "peak"


def _fit(format: Format, low: Tensor, high: Tensor, x: Tensor | None) -> Parameters:
    own = format if format.residual is None else replace(format, residual=None)
    if own.scale is None:
        given: Parameters = ()
    elif isinstance(own.element, Lut):
        given = _codebooks(own, low, high, x if own.rule == "mse" else None)
    elif own.rule == "mse" and x is not None and x.numel():
        given = _least_error(own, low, high, x)
    else:
        given = by_rule(own, low, high, x)
    if format.residual is None:
        return given
    assert x is not None
    return given + format.residual._measure(x.to(format._kind(x)) - own._cast(x, given))


def _codebooks(format: Format, low: Tensor, high: Tensor, x: Tensor | None) -> Parameters:
    """Codebooks, in the format that stands in the scale's place, and what is above them."""
    scale = format.scale
    assert scale is not None
    assert isinstance(format.element, Lut)
    raw = fit_codebooks(x, low, high, format.block or TENSOR, format.element.count)
    above = scale._measure(raw)
    level = scale._grid(raw if above else raw.clamp(scale.element.minimum, scale.element.maximum), above)
    return level.masked_fill(level.isnan(), torch.nan), *above  # of one sign, since codes show it


def _least_error(format: Format, low: Tensor, high: Tensor, x: Tensor) -> Parameters:
    """Of all trials, for each block the one with the least squared error."""
    block, exact = format.block or TENSOR, x.to(format._kind(x))
    best = split(format, by_rule(format, low, high, x))
    least = None
    for shrink in POWERS if jumps(format) else SHRINK:  # what is above scales and offsets stays that of the full range
        trial = split(format, by_rule(format, low * shrink, high * shrink, x, best))
        error = block.sum((format._cast(x, trial.flat) - exact).square_().double())
        better = torch.ones_like(error, dtype=torch.bool) if least is None else error < least
        least = error if least is None else torch.where(better, error, least)
        best = best.chosen(trial, better)
    return best.flat


def by_rule(format: Format, low: Tensor, high: Tensor, x: Tensor | None, kept: Given | None = None) -> Parameters:
    """Offset, scale and zero point of one range; `kept` has the parameters of their own scales."""
    scale, offset, block = format.scale, (), format.block or TENSOR
    assert scale is not None
    if format.offset is not None:
        raw = (0.0 - low).float()  # of one sign where low is zero
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
    elif format.rule == "mse" and jumps(format):
        scale = replace(scale, rounding="down")
    if scale.scale is None:
        raw = torch.where(raw == 0, 1.0, raw)  # a block of zeros: any scale will do, one does no harm in an engine
    above = () if scale.scale is None else kept.above if kept else scale._measure(raw)
    level = scale._grid(raw, above)
    level = clamp_scale_(level, scale.element, signed=format.rule == "peak")
    if format.zero_point is None:
        return level, *above, *offset
    assert isinstance(format.element, Int)
    return level, zero_point(low, scale._value(level, above), format.element, format.zero_point), *above
