"""The parameters of a format: tensors in a fixed order, and by what they are for."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planish.formats.element import Element
from planish.formats.lut import Lut

if TYPE_CHECKING:
    from planish.formats.format import Format

Parameters = tuple[Tensor, ...]


@dataclass(frozen=True)
class Given:
    """The parameters of a format, by what they are for.

    Attributes:
        scale: One number of the scale's element for each block, or a codebook of them; None without a scale.
        zero: The code of zero; None in a format that is not affine.
        above: The parameters of the scale's own format.
        offset: What is subtracted, and the parameters of its own format.
        residual: The parameters of the residual's format.
    """

    scale: Tensor | None
    zero: Tensor | None
    above: Parameters
    offset: Parameters
    residual: Parameters

    @property
    def flat(self) -> Parameters:
        """In the order of `Format.levels`."""
        own = tuple(p for p in (self.scale, self.zero) if p is not None)
        return (*own, *self.above, *self.offset, *self.residual)

    def chosen(self, other: Given, where: Tensor) -> Given:
        """These, but the scale, zero point and offset of the blocks `where` are those of `other`."""

        def pick(mine: Tensor | None, its: Tensor | None) -> Tensor | None:
            return None if mine is None or its is None else torch.where(where, its, mine)

        offset = tuple(torch.where(where, b, a) for a, b in zip(self.offset[:1], other.offset[:1], strict=True))
        return replace(
            self,
            scale=pick(self.scale, other.scale),
            zero=pick(self.zero, other.zero),
            offset=(*offset, *self.offset[1:]),
        )


def split(format: Format, parameters: Parameters) -> Given:
    """`parameters`, one for each of the format's levels, by what they are for."""
    left = iter(parameters)
    scale, zero = next(left) if format.scale else None, next(left) if format.zero_point else None
    above = tuple(islice(left, len(format.scale.levels) if format.scale else 0))
    offset = tuple(islice(left, 1 + len(format.offset.levels) if format.offset else 0))
    return Given(scale, zero, above, offset, tuple(left))


def levels(format: Format) -> tuple[tuple[str, Element], ...]:
    """Name and element of each parameter; a name is the path of fields that leads to it."""
    found: list[tuple[str, Element]] = []
    if format.scale is not None:
        name_of = "codebook" if isinstance(format.element, Lut) else "scale"
        found = [(name_of, format.scale.element)]
        found += [("zero_point", format.zero_point)] if format.zero_point else []
        found += [(f"{name_of}.{name}", element) for name, element in format.scale.levels]
    if format.offset is not None:
        found += [("offset", format.offset.element)]
        found += [(f"offset.{name}", element) for name, element in format.offset.levels]
    if format.residual is not None:
        found += [(f"residual.{name}", element) for name, element in format.residual.levels]
    return tuple(found)


def level_shapes(format: Format, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The shape of the parameter of each level, for a tensor of `shape`."""
    found: tuple[tuple[int, ...], ...] = ()
    if format.scale is not None:
        own = format.scale_shape(shape)
        stored = (*own, format.element.count) if isinstance(format.element, Lut) else own
        found = (stored, *(own,) * format.is_affine, *format.scale.level_shapes(stored))
        found += (own, *format.offset.level_shapes(own)) if format.offset else ()
    return found + (format.residual.level_shapes(shape) if format.residual else ())
