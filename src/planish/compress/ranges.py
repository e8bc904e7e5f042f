"""From the values that an activation took to the range that its format will hold."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from planish.errors import DataError, OptionError
from planish.formats import Format
from planish.formats.block import TENSOR
from planish.formats.scaling import ranges as block_ranges

Ranges = Literal["minmax", "percentile", "mse"]
RANGES = get_args(Ranges)
MOST = 1 << 20
"""As many numbers of a tensor are looked at where all would be too many (percentile and mse)."""
SHRINK = tuple(1 - 0.04 * step for step in range(20))


def find_range(
    values: list[Tensor], format: Format, how: Ranges, percentile: float, where: str
) -> tuple[Tensor, Tensor]:
    """The lowest and the highest number to hold, in the shape of the format's scales.

    Raises:
        DataError: The values hold NaN or infinity.
        OptionError: The format holds no negative numbers, and the values have some.
    """
    block = format.block or TENSOR
    bounds = [block_ranges(value.float(), block, True) for value in values]
    low = torch.stack([bound[0] for bound in bounds]).amin(0)
    high = torch.stack([bound[1] for bound in bounds]).amax(0)
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        raise DataError(
            "an activation is NaN or infinite on the calibration data", where, "check the data and the model"
        )
    if format.element.minimum >= 0 and not format.is_affine and bool((low < 0).any()):
        raise OptionError(
            f"{format} holds no negative numbers, and this input has some", where, "uint8 (with a zero point)"
        )
    if how == "minmax" or not block.is_tensor:
        return low, high
    sample = _sample(values)
    if how == "percentile":
        tail = (100 - percentile) / 200
        below, above = torch.quantile(sample, torch.tensor([tail, 1 - tail], dtype=sample.dtype))
        return below.clamp(min=low), above.clamp(max=high)
    return _least_error(sample, format, low, high)


def _least_error(sample: Tensor, format: Format, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Shrink the top, then the bottom of the range, while the squared rounding error falls."""

    def error(low: Tensor, high: Tensor) -> float:
        return float((format.cast(sample, format.parameters(low=low, high=high)) - sample).square().sum())

    high = high * min(SHRINK, key=lambda share: error(low, high * share))
    if format.is_affine:
        low = low * min(SHRINK, key=lambda share: error(low * share, high))
    return low, high


def _sample(values: list[Tensor]) -> Tensor:
    flat = torch.cat([value.float().flatten() for value in values])
    return flat if flat.numel() <= MOST else flat[:: -(-flat.numel() // MOST)]
