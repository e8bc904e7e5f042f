"""A call as the rules see it: concrete shapes and widths, no tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Array:
    """A tensor as the rules see it.

    Attributes:
        shape: Concrete sizes.
        width: Bytes per element, with the share of scales that it has in its format.
        contiguous: Whether its elements lie in row-major order without gaps.
        distinct: How many elements are stored; fewer than `size` where an axis is expanded.
        kind: What engines compute on: "f32", "bf16" (and float16), "int8" (any integer format of at most 8 bits).
    """

    shape: tuple[int, ...]
    width: float
    contiguous: bool
    distinct: int
    kind: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        """Bytes to read or write all of it once."""
        return self.distinct * self.width


@dataclass(frozen=True, slots=True)
class Call:
    """One operation on arrays: its arguments by the names of the operator's schema, and what it returns."""

    op: str
    arguments: Mapping[str, Any]
    outputs: tuple[Array, ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def out(self) -> Array:
        """The first result."""
        return self.outputs[0]

    @property
    def arrays(self) -> list[Array]:
        """All tensor arguments, those in lists too."""
        flat = (v for value in self.arguments.values() for v in (value if isinstance(value, list | tuple) else [value]))
        return [value for value in flat if isinstance(value, Array)]

    @property
    def first(self) -> Array:
        """The first tensor argument."""
        return self.arrays[0]
