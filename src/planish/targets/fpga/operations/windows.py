"""Windows over axes of space, for convolutions and pools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from planish.targets.fpga.operations.base import Integers, Operation, Value

Padding = Sequence[tuple[int, int]]


def check_windows(
    operation: Operation, kernel: Sequence[int], stride: Sequence[int], padding: Padding, dilation: Sequence[int]
) -> None:
    """Refuse lists of unequal length and sizes that are not positive."""
    lengths = {len(kernel), len(stride), len(padding), len(dilation)}
    operation.require(len(lengths) == 1, f"kernel, stride, padding and dilation have unequal lengths {sorted(lengths)}")
    operation.require(min([*kernel, *stride, *dilation]) > 0, "a kernel, a stride and a dilation are 1 or more")
    operation.require(all(size >= 0 for pair in padding for size in pair), f"padding {padding} is negative")


def window_shape(
    operation: Operation,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """How many windows there are along each axis of space."""
    operation.require(
        len(x.shape) == len(kernel) + 1, f"{x.name} of shape {x.shape} is not ({len(kernel)} axes of space, channels)"
    )
    space = tuple(
        (size + sum(pad) - d * (k - 1) - 1) // s + 1
        for size, k, s, pad, d in zip(x.shape, kernel, stride, padding, dilation, strict=False)
    )
    operation.require(min(space) > 0, f"a window of {tuple(kernel)} does not fit into {x.shape}")
    return space


def padded(x: Integers, padding: Padding, fill: int) -> Integers:
    """`(batch, *space, channels)` with numbers around."""
    if not any(size for pair in padding for size in pair):
        return x
    return np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=fill)


def taps(
    x: Integers, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Integers]]:
    """Each place of the window, and what all windows have there, `(batch, *windows, channels)`."""
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[1:], kernel, stride, dilation, strict=False)]
    for place in np.ndindex(*kernel):
        starts = [p * d for p, d in zip(place, dilation, strict=True)]
        cut = [
            slice(start, start + (count - 1) * s + 1, s) for start, count, s in zip(starts, counts, stride, strict=True)
        ]
        yield place, x[(slice(None), *cut)]
