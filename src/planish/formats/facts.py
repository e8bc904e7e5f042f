"""What one would want to know of a format before using it, computed from its definition."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from planish.formats.element import Element
from planish.formats.floating import Float
from planish.formats.format import Format
from planish.formats.lut import Lut
from planish.formats.named import NAMED, SOURCES, get
from planish.formats.posit import Posit


@dataclass(frozen=True)
class Facts:
    """The figures of a format. `lowest`, `highest` and `step` are in units of the scale if there is one; of a learned
    codebook they are places.

    Attributes:
        name: The name that was asked for, or the text form.
        text: The text form.
        bits: Bits of one code.
        bits_per_value: With the share of the scales, zero points and offsets, for a tensor of large whole blocks; those
            of a whole tensor, channel or token add nothing.
        scaled: Whether there is a scale.
        lowest: The lowest number of the element.
        highest: The highest.
        smallest: The smallest positive number.
        step: The least difference of two neighboring numbers.
        relative_error: The largest `|x - cast(x)| / |x|` within a factor of two of the largest number (rounding to
            nearest): half a step for an integer, the unit roundoff for a float. None for a residual, whose levels
            have scales of their own, and for a learned codebook.
        source: The standard's clause or the paper; empty for a format without a name.
    """

    name: str
    text: str
    bits: int
    bits_per_value: float
    scaled: bool
    lowest: float
    highest: float
    smallest: float
    step: float
    relative_error: float | None
    source: str


def facts(format: Format | str) -> Facts:
    """The figures of a format, its name, or its text form."""
    form = get(format)
    name = format if isinstance(format, str) else _names().get(form, str(form))
    return Facts(
        name=name,
        text=str(form),
        bits=form.bits,
        bits_per_value=bits_per_value(form),
        scaled=form.scale is not None,
        lowest=form.element.minimum,
        highest=form.element.maximum,
        smallest=form.element.smallest,
        step=_step(form.element),
        relative_error=None if form.residual or isinstance(form.element, Lut) else _relative_error(form.element),
        source=SOURCES.get(name, ""),
    )


def bits_per_value(format: Format) -> float:
    """Bits of a number with its share of all scales, zero points and offsets."""
    bits = float(format.element.bits)
    if format.scale is not None:
        share = _numbers_of_a_block(format)
        numbers = format.element.count if isinstance(format.element, Lut) else 1
        bits += numbers * bits_per_value(format.scale) / share
        bits += format.zero_point.bits / share if format.zero_point else 0.0
        bits += bits_per_value(format.offset) / share if format.offset else 0.0
    return bits + (bits_per_value(format.residual) if format.residual else 0.0)


def _numbers_of_a_block(format: Format) -> float:
    block = format.block
    if block is None or block.others == "whole" or any(size is None for _, size in block.sizes):
        return math.inf
    return math.prod(size for _, size in block.sizes if size is not None)


def _relative_error(element: Element) -> float:
    if element.bits > 16:  # too large to list, and even: half a step at the half or at the last power of two
        floating = isinstance(element, Float)
        low = 2.0**element.emax if floating else element.maximum / 2
        step = low * 2.0**-element.mantissa if floating else element.smallest
        return step / (2 * low + step)
    numbers, half = _numbers(element), torch.tensor([element.maximum / 2], dtype=torch.float64)
    cuts = (numbers[1:] + numbers[:-1]) / 2
    if isinstance(element, Posit):  # whose neighbors part elsewhere
        cuts = torch.tensor(element.cuts("even"), dtype=torch.float64)
    errors = torch.maximum(numbers[1:] - cuts, cuts - numbers[:-1]) / cuts
    at_half = (element.round_(half.clone()) - half).abs() / half
    return float(torch.cat([at_half, errors[cuts >= half]]).amax())


def _step(element: Element) -> float:
    return element.smallest if element.bits > 16 else float(_numbers(element).diff().amin())


def _numbers(element: Element) -> Tensor:
    grid = element.grid
    return grid[grid.isfinite()].unique()  # rising


def _names() -> Mapping[Format, str]:
    return {get(name): name for name in reversed(NAMED)}
