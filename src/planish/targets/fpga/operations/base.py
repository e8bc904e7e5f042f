"""What a value and an operation of the integer program are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from planish.errors import GraphError

Integers = NDArray[np.int64]

WIDEST = 62
"""Bits of the largest number that may come up on the way: `run` computes in 64."""


@dataclass(frozen=True)
class Codes:
    """Which integers a value may hold.

    Attributes:
        low: Smallest code.
        high: Largest code.
        frac: Fraction bits: a code stands for `code * 2**-frac`; may be negative.
    """

    low: int
    high: int
    frac: int = 0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise GraphError(f"no code is between {self.low} and {self.high}", "codes")

    @property
    def signed(self) -> bool:
        """Whether a code may be negative."""
        return self.low < 0

    @property
    def bits(self) -> int:
        """Width of the two's complement (or, where no code is negative, unsigned) word."""
        return (
            max(self.high.bit_length(), (~self.low).bit_length() if self.signed else 0, 1 - self.signed) + self.signed
        )

    @property
    def largest(self) -> int:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    def holds(self, low: int, high: int) -> bool:
        """Whether each integer from `low` to `high` is a code."""
        return self.low <= low and high <= self.high


@dataclass(frozen=True)
class Value:
    """A tensor of integers.

    Attributes:
        name: Unique in its program.
        shape: Without the batch; channels last.
        codes: What its numbers may be.
        path: The module of the user's model that it came from.
    """

    name: str
    shape: tuple[int, ...]
    codes: Codes
    path: str = ""

    @property
    def size(self) -> int:
        """Numbers of one sample."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def row(self) -> int:
        """Numbers along the last axis."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True, eq=False)
class Operation(ABC):
    """One step of a program: reads values by name and makes one.

    `run` takes and gives codes with a leading batch axis. Sums and products are exact; only `Requantize`,
    `Normalize`, `Microscale` and tables lose anything.

    Raises:
        GraphError: When made, if its own numbers do not fit each other or its output.
    """

    inputs: tuple[str, ...]
    output: Value

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            if isinstance(given, np.ndarray):
                object.__setattr__(self, field.name, np.ascontiguousarray(given, dtype=np.int64).reshape(given.shape))
        self.check()

    def check(self) -> None:  # noqa: B027  (many have no numbers of their own)
        """Refuse numbers that do not fit each other."""

    @abstractmethod
    def run(self, *codes: Integers) -> Integers:
        """The output's codes, `(batch, *shape)`, from those of the inputs."""

    @abstractmethod
    def shape(self, *inputs: Value) -> tuple[int, ...]:
        """The shape of what comes of these inputs.

        Raises:
            GraphError: It does not take them.
        """

    @abstractmethod
    def bounds(self, *inputs: Value) -> tuple[int, int]:
        """The lowest and the highest code that can come of these inputs."""

    @property
    def where(self) -> str:
        """The user's module, and the value that is made."""
        return f"{self.output.path or 'the model'} ({type(self).__name__} {self.output.name})"

    def refuse(self, what: str) -> GraphError:
        """An error that names this operation."""
        return GraphError(what, self.where)

    def require(self, condition: bool, what: str) -> None:
        """Raise a GraphError that says `what` unless the condition holds."""
        if not condition:
            raise self.refuse(what)


def exact_sum(low: Iterable[int], high: Iterable[int]) -> tuple[int, int]:
    """Bounds of a sum from those of its terms."""
    return sum(low), sum(high)


def product_bounds(a: Codes, b: Codes) -> tuple[int, int]:
    """Bounds of the product of two numbers."""
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(corners), max(corners)


def weighted_bounds(weight: Integers, low: int, high: int, bias: Integers | None) -> tuple[int, int]:
    """Bounds of `weight @ x + bias` for `(rows, columns)` weights and `low <= x <= high`."""
    up, down = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
    shift = np.zeros_like(up) if bias is None else bias
    lowest = [int(u) * low + int(d) * high + int(b) for u, d, b in zip(up, down, shift, strict=True)]
    highest = [int(u) * high + int(d) * low + int(b) for u, d, b in zip(up, down, shift, strict=True)]
    return min(lowest), max(highest)


def matmul(a: Integers, b: Integers) -> Integers:
    """`a @ b` exactly: in float64, whose products BLAS makes fast, where no partial sum can leave its integers."""
    if a.size and b.size:
        bound = max(abs(int(a.min())), abs(int(a.max()))) * max(abs(int(b.min())), abs(int(b.max()))) * a.shape[-1]
        if bound < 2**53:
            return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)
    return np.matmul(a, b)


def beside(codes: Integers, rank: int) -> Integers:
    """Codes of a batch with axes of size 1 put after the batch until they have `rank` axes without it."""
    return codes.reshape(codes.shape[0], *[1] * (rank + 1 - codes.ndim), *codes.shape[1:])


def joint_shape(operation: Operation, *inputs: Value) -> tuple[int, ...]:
    """The shape of an element-wise operation, of which an input may have size 1 on the last axis or be a row."""
    full = max((value.shape for value in inputs), key=lambda shape: (len(shape), np.prod(shape)))
    for value in inputs:
        fits = value.shape == full or value.shape == (*full[:-1], 1) or value.shape in ((full[-1],), (1,))
        operation.require(fits, f"{value.name} of shape {value.shape} goes with {full} neither whole nor as a row")
    return full
