"""How a tensor of the model lies in the stream: the axes of a value, and bringing them into another order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from planish.targets.fpga.operations.base import Value


@dataclass(frozen=True)
class Held:
    """A tensor of the model as a value of the program.

    Attributes:
        value: The value.
        model: The tensor's shape in the model, for one sample.
        axes: The model's axis that each axis of the value is. Axes that are missing have size 1.
        before: For an axis that was flattened in the value's order, not the model's: what it was flattened from.
    """

    value: Value
    model: tuple[int, ...]
    axes: tuple[int, ...]
    before: Held | None = None

    @property
    def name(self) -> str:
        """Of the value."""
        return self.value.name

    @property
    def wide_axes(self) -> tuple[int, ...]:
        """The axes that hold more than one number, in the value's order."""
        return tuple(axis for axis in self.axes if self.model[axis] > 1)

    def order(self) -> np.ndarray:
        """The model's index, along the flattened axis, of each number of the value's."""
        assert self.before is not None
        old = self.before
        places = np.arange(int(np.prod(old.model))).reshape(old.model)
        missing = tuple(axis for axis in range(len(old.model)) if axis not in old.axes)
        return places.transpose(*missing, *old.axes).reshape(-1)


def groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Which axes of one shape become which of another with the same numbers in the same order, smallest groups first.

    Axes of size 1 are in no group.
    """
    left = [axis for axis, size in enumerate(old) if size != 1]
    right = [axis for axis, size in enumerate(new) if size != 1]
    found: list[tuple[list[int], list[int]]] = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        while (m := int(np.prod([old[i] for i in a]))) != (n := int(np.prod([new[i] for i in b]))):
            (a if m < n else b).append((left if m < n else right).pop(0))
        found.append((a, b))
    return found


def reshaped_axes(held: Held, new: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of the value under the model's new shape, where that moves nothing; None if it must."""
    order: list[tuple[int, list[int]]] = []
    for olds, news in groups(held.model, new):
        places = [held.axes.index(axis) for axis in olds]
        between = [axis for axis in held.axes[min(places) : max(places) + 1] if held.model[axis] > 1]
        if between != olds or any(b < a for a, b in pairwise(places)):
            return None
        order.append((min(places), news))
    return tuple(axis for _, news in sorted(order) for axis in news)
