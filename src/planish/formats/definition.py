"""What rounding, encoding and decoding mean, in torch: the definition that kernels equal to the bit."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planish.formats.block import TENSOR
from planish.formats.codes import joined, parted
from planish.formats.integer import Int
from planish.formats.lut import Lut, look_up, places
from planish.formats.lut import inside as inside_codebooks
from planish.formats.parameters import Given, Parameters, split

if TYPE_CHECKING:
    from planish.formats.format import Format


def quantize(format: Format, x: Tensor, given: Given, seed: int | None, rescale: bool) -> Tensor:
    """The element's number for each of `x`, zero points taken away; times the scale, less the offset, if `rescale`."""
    block, kind = format.block or TENSOR, format._kind(x)
    generator = None if seed is None else torch.Generator(x.device).manual_seed(seed)
    if format.scale is None:
        return _round(format, x.to(kind, copy=True), generator)
    if isinstance(format.element, Lut):
        codebooks = effective(format.scale, given)
        found = places(x.to(kind), codebooks, block)
        return look_up(found, codebooks, block) if rescale else found
    zero = None if given.zero is None else block.spread(given.zero, x.shape).to(kind)
    parts = _round(format, _scaled(format, block.split(x.to(kind)), given, x.shape), generator, zero)
    return block.join(_unscaled(format, parts, given, x.shape, parts) if rescale else parts, x.shape)


def value(format: Format, values: Tensor, given: Given) -> Tensor:
    """Numbers of the element, times the scale, less the offset."""
    if format.scale is None:
        return values
    block = format.block or TENSOR
    if isinstance(format.element, Lut):
        return look_up(values, effective(format.scale, given), block)
    return block.join(_unscaled(format, block.split(values), given, values.shape), values.shape)


def codes(format: Format, x: Tensor, parameters: Parameters, seed: int | None) -> Tensor:
    """The code of each of `x`, that of a residual above its bits."""
    block, given, values = format.block or TENSOR, split(format, parameters), format._grid(x, parameters, seed)
    own = values
    if given.zero is not None:
        own = block.join(block.split(values) + block.spread(given.zero, x.shape).to(values.dtype), x.shape)
    result = format.element.to_codes(own)
    if format.residual is None:
        return result
    left = x.to(values.dtype) - value(format, values, given)
    above = codes(format.residual, left, given.residual, after(seed))
    return joined(result, format.element, above, format.residual).to(format.code_dtype)


def decoded(format: Format, codes: Tensor, given: Given, kind: torch.dtype) -> Tensor:
    """The number of each code, of type `kind`."""
    block, above = format.block or TENSOR, None
    if format.residual is not None:
        codes, above = parted(codes, format.element, format.residual)
    values = format.element.from_codes(codes, kind)
    if given.zero is not None:
        values = block.join(block.split(values) - block.spread(given.zero, codes.shape).to(kind), codes.shape)
    y = value(format, values, given)
    if format.residual is None or above is None:
        return y
    return y + format.residual._decoded(above, given.residual, kind)


def inside(format: Format, x: Tensor, parameters: Parameters) -> Tensor:
    """Where `x` lies between the lowest and the highest number (bool)."""
    given, block = split(format, parameters), format.block or TENSOR
    if format.residual is not None:
        left = x - format._first(x, parameters)
        first = inside(replace(format, residual=None), x, replace(given, residual=()).flat)
        return first | inside(format.residual, left, given.residual)
    if isinstance(format.element, Lut) and format.scale is not None:
        return inside_codebooks(x, effective(format.scale, given), block)
    parts = _scaled(format, block.split(x), given, x.shape)
    slack = format.element.maximum * 2.0**-21  # the largest number, divided by its own scale, is off by an ulp or two
    low, high = format.element.minimum - slack, format.element.maximum + slack
    if given.zero is None:
        return block.join((parts >= low) & (parts <= high), x.shape)
    zero = block.spread(given.zero, x.shape).to(parts.dtype)
    return block.join((parts >= low - zero) & (parts <= high - zero), x.shape)


def units(format: Format, x: Tensor, given: Given) -> Tensor:
    """`x` in units of the scale, not rounded."""
    block = format.block or TENSOR
    return block.join(_scaled(format, block.split(x), given, x.shape), x.shape)


def effective(scale: Format, given: Given) -> Tensor:
    """The numbers, float32, that stored scales or codebooks stand for, given those of their own levels."""
    assert given.scale is not None
    return scale._value(given.scale.float(), given.above)


def after(seed: int | None) -> int | None:
    """The seed of a residual: not that of the level before it."""
    return None if seed is None else seed + 1


def _round(format: Format, parts: Tensor, generator: torch.Generator | None, zero: Tensor | None = None) -> Tensor:
    """Numbers of the element for numbers in its units, overwriting them."""
    element = format.element
    if format.nan == "max" or (format.nan == "zero" and element.has_nan):
        parts = torch.where(parts.isnan(), element.maximum if format.nan == "max" else 0.0, parts)
    if zero is None:
        return element.round_(parts, format.rounding, format.overflow, generator)
    assert isinstance(element, Int)
    return element.round_(parts, format.rounding, format.overflow, generator, zero)


def _scaled(format: Format, parts: Tensor, given: Given, shape: Sequence[int]) -> Tensor:
    """Split numbers in units of the element."""
    if format.scale is None:
        return parts
    if format.offset is not None:
        parts = parts + _shift(format, given, shape, parts.dtype)
    return parts / format._scale(given, shape, parts.dtype)


def _unscaled(format: Format, parts: Tensor, given: Given, shape: Sequence[int], out: Tensor | None = None) -> Tensor:
    parts = torch.mul(parts, format._scale(given, shape, parts.dtype), out=out)
    return parts if format.offset is None else parts.sub_(_shift(format, given, shape, parts.dtype))


def _shift(format: Format, given: Given, shape: Sequence[int], kind: torch.dtype) -> Tensor:
    """The effective offset, as it broadcasts against the split tensor."""
    assert format.offset is not None
    offset = format.offset._value(given.offset[0].float(), given.offset[1:])
    return (format.block or TENSOR).spread(offset, shape).to(kind)
