"""What stands in for the gradient of rounding: to the tensor, and to every level of the parameters.

| estimator | to the tensor | to a block's scale `s`, with `q` the number in units of it | to its offset |
| --- | --- | --- | --- |
| `straight-through` | passes | | |
| `clipped` | passes inside the range | | |
| `lsq` | passes inside | inside `q - x / s`, outside `q`; over `sqrt(numbers × highest code)` | outside `-1`, over it |
| `pact` | passes inside | outside `q`, that is the clip over the highest code | outside `-1` |

What a scale stands for depends on its own scale and offset (NVFP4): by the chain rule the gradient goes on to those,
past the rounding of the level between. The numbers of a learned codebook get, by every estimator, the sum of what comes
to the numbers that use them, which is exact. Zero points are integers and do not learn.
"""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from planish.formats import definition
from planish.formats.block import TENSOR
from planish.formats.lut import Lut, gathered, places
from planish.formats.parameters import Given, Parameters, split

if TYPE_CHECKING:
    from planish.formats.format import Format

Gradient = Literal["straight-through", "clipped", "lsq", "pact"]
"""`straight-through`: the gradient passes. `clipped`: it passes where the number was inside the format's range. `lsq`:
as clipped, and scales and offsets learn (Learned Step Size Quantization, arXiv 1902.08153, equation 3; LSQ+, arXiv
2004.09576). `pact`: as clipped, and they learn from the numbers that are clipped (PACT, arXiv 1805.06085, eq. 3)."""
Gradients = list[Tensor | None]


def gradients(
    format: Format, x: Tensor, parameters: Parameters, grad: Tensor, gradient: Gradient
) -> tuple[Tensor, Gradients]:
    """To `x`, and to each of `parameters`, of a sum whose gradient to `format.cast(x, parameters)` is `grad`."""
    if format.residual is None:
        return _of_one(format, x, split(format, parameters), grad, gradient)
    given, own = split(format, parameters), replace(format, residual=None)
    left = x - format._first(x, parameters).to(x.dtype)
    to_left, to_residual = gradients(format.residual, left, given.residual, grad, gradient)
    to_x, to_own = _of_one(own, x, replace(given, residual=()), grad - to_left, gradient)
    return to_x + to_left, [*to_own, *to_residual]


def _of_one(format: Format, x: Tensor, given: Given, grad: Tensor, gradient: Gradient) -> tuple[Tensor, Gradients]:
    """As `gradients`, of a format without a residual."""
    inside = None if gradient == "straight-through" else format.inside(x, given.flat)
    to_x = grad if inside is None else grad * inside
    if format.scale is None:
        return to_x, []
    block = format.block or TENSOR
    if isinstance(format.element, Lut):
        codebooks = definition.effective(format.scale, given)
        found = places(x.to(format._kind(x)), codebooks, block)
        total = gathered(grad, found, codebooks, block).reshape(given.scale.shape)  # type: ignore[union-attr]
        return to_x, _to_levels(format, given, total, None)
    if inside is None or gradient == "clipped":
        return to_x, [None] * len(format.levels)
    grad, kept = grad.float(), inside.float()
    units = format._grid(x, given.flat).float()
    slope = units - definition.units(format, x.float(), given) * kept if gradient == "lsq" else units * (1 - kept)
    to_scale, to_offset = block.sum(slope * grad), -block.sum(grad * (1 - kept))
    if gradient == "lsq":
        share = (x.numel() / max(1, to_scale.numel()) * format.element.maximum) ** 0.5
        to_scale, to_offset = to_scale / share, to_offset / share
    return to_x, _to_levels(format, given, to_scale, to_offset)


def _to_levels(format: Format, given: Given, to_scale: Tensor, to_offset: Tensor | None) -> Gradients:
    """To each of the format's levels, from those of what scale and offset stand for."""
    assert format.scale is not None
    assert given.scale is not None
    scale, *above = _through(format.scale, given.scale, given.above, to_scale)
    offset: Gradients = []
    if format.offset is not None:
        assert to_offset is not None
        offset = _through(format.offset, given.offset[0], given.offset[1:], to_offset)
    return [scale, *[None] * format.is_affine, *above, *offset]


def _through(format: Format, level: Tensor, above: Parameters, grad: Tensor) -> Gradients:
    """To a level in `format`, and to those above it, from that of the numbers that it stands for."""
    grad = _summed(grad, level)
    if format.scale is None:
        return [grad.to(level.dtype)]
    given, block = split(format, above), format.block or TENSOR
    scale = format._scale(given, level.shape, grad.dtype)
    own = block.join(block.split(grad) * scale, level.shape).to(level.dtype)
    return [own, *_to_levels(format, given, block.sum(grad * level), -block.sum(grad))]


def _summed(grad: Tensor, level: Tensor) -> Tensor:
    """`grad` in the shape of a level that may be one number for many blocks."""
    return grad.sum_to_size(level.shape) if grad.numel() != level.numel() else grad.reshape(level.shape)
