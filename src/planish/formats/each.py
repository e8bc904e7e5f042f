"""The same format with what blocks share written out for each number, so that a tensor can be cut anywhere."""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planish.formats import definition
from planish.formats.block import TENSOR, Block
from planish.formats.floating import FLOAT32
from planish.formats.lut import Lut
from planish.formats.parameters import Parameters, split

if TYPE_CHECKING:
    from planish.formats.format import Format

EACH = Block((), "one")


def of_each(format: Format, parameters: Parameters, shape: Sequence[int]) -> tuple[Format, Parameters]:
    """A format whose blocks are single numbers, and its parameters: of a tensor it makes what `format` makes.

    Args:
        format: Any; of scales and offsets with scales of their own, what they stand for is kept, in float32.
        parameters: One for each of the format's levels.
        shape: Of the tensor.

    Returns:
        The format, and parameters of `shape`, or `shape` and the numbers of a codebook; cut alike, they fit what is cut
        from the tensor.
    """
    given, block = split(format, parameters), format.block or TENSOR
    found, rest = [], ()
    if format.scale is not None:
        plain = type(format)(FLOAT32, scale=None, overflow="infinity")
        numbers = definition.effective(format.scale, given)
        found = [_codebooks(numbers, block, shape) if isinstance(format.element, Lut) else _each(numbers, block, shape)]
        found += [] if given.zero is None else [_each(given.zero, block, shape)]
        if format.offset is not None:
            shift = format.offset._value(given.offset[0].float(), given.offset[1:])
            found.append(_each(shift, block, shape))
        format = replace(format, block=EACH, scale=plain, offset=format.offset and plain)
    if format.residual is not None:
        residual, rest = of_each(format.residual, given.residual, shape)
        format = replace(format, residual=residual)
    return format, (*found, *rest)


def _each(values: Tensor, block: Block, shape: Sequence[int]) -> Tensor:
    spread = block.spread(values, shape)
    return block.join(spread.expand(block.split(torch.empty(shape, device="meta")).shape), shape)


def _codebooks(codebooks: Tensor, block: Block, shape: Sequence[int]) -> Tensor:
    if codebooks.dim() == 1:
        return codebooks.expand(*shape, -1)
    count = codebooks.shape[:-1].numel()
    where = torch.arange(count, dtype=torch.float64, device=codebooks.device).reshape(codebooks.shape[:-1])
    return codebooks.flatten(0, -2)[_each(where, block, shape).long()]
