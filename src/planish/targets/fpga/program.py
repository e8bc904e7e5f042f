"""The integer program: what the hardware computes, one operation after the other, and the definition of its numerics.

Every value is a tensor of integers; a code `c` of a value with `frac` fraction bits stands for `c * 2**-frac`. There are
no floats, no scales and no batch: a program computes one sample, and `run` takes any number of them along a leading
axis. Axes are in the order of the stream: channels last, rows of tokens one after the other. SystemVerilog equals `run`
bit for bit; the prepared graph evaluated in float64 equals it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


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

    @property
    def signed(self) -> bool:
        return self.low < 0

    @property
    def bits(self) -> int:
        """Width of the two's complement (or, where no code is negative, unsigned) word."""
        return max(self.high.bit_length(), (~self.low).bit_length() if self.signed else 0, 1 - self.signed) + self.signed


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
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Operation:
    """One step of a program: reads values by name and makes one.

    `run` takes and gives codes with a leading batch axis. Sums and products are exact; only `Requantize`, `Normalize`
    and tables lose anything.
    """

    inputs: tuple[str, ...]
    output: Value

    def run(self, *codes: Integers) -> Integers:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Linear(Operation):
    """`x @ weight.T + bias` over the last axis.

    Attributes:
        weight: Codes, `(out, in)`.
        bias: At the fraction bits of the output, `(out,)`.
    """

    weight: Integers
    bias: Integers | None = None


@dataclass(frozen=True, eq=False)
class Convolve(Operation):
    """A convolution of one to three dimensions over `(*space, channels)`; padding is zeros.

    Attributes:
        weight: Codes, `(out, *kernel, in / groups)`.
        bias: `(out,)`.
        stride: Of each axis of space.
        padding: Before and after, of each axis of space.
        dilation: Of each axis of space.
        groups: Depthwise where equal to the channels.
    """

    weight: Integers
    bias: Integers | None
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Requantize(Operation):
    """`clamp(round(x * multiplier * 2**-shift), low, high)`, the bounds being those of the output's codes.

    Attributes:
        multiplier: Nonnegative, `()` or `(channels,)`.
        shift: Bits that go; negative ones come.
        rounding: "even" (half to even), "up" (half up) or "floor".
    """

    multiplier: Integers
    shift: int
    rounding: str = "even"


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum of `sign * (x << shift)` over the inputs; one of them may have size 1 on the last axis, or be a row.

    Attributes:
        shifts: Nonnegative, one for each input.
        signs: 1 or -1, one for each input.
    """

    shifts: tuple[int, ...]
    signs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """The element-wise product of two inputs; the second may have size 1 on the last axis, or be a row."""


@dataclass(frozen=True, eq=False)
class Constant(Operation):
    """Numbers that are always the same: position embeddings, class tokens, scales of a norm.

    Attributes:
        value: Codes of the output's shape.
    """

    value: Integers


@dataclass(frozen=True, eq=False)
class Lookup(Operation):
    """Each code replaced by its entry of a table: any function of one number.

    Attributes:
        table: One entry for each code of the input, from its lowest.
    """

    table: Integers


@dataclass(frozen=True, eq=False)
class Reduce(Operation):
    """Sum or maximum of each row (the last axis), which keeps size 1.

    Attributes:
        kind: "sum" or "max".
    """

    kind: str


@dataclass(frozen=True, eq=False)
class Normalize(Operation):
    """`x / v` or `x / sqrt(v)`, by a table over the leading bits of `v`, a row's positive number.

    With `p = floor(log2 v)` (made even for the root), the index is the `index` bits below the leading one (and, for the
    root, the parity of `floor(log2 v)` above them). The result is `clamp(round(x * table[i] * 2**-(shift + q)))` with
    `q = p` for the quotient and `p / 2` for the root.

    Attributes:
        root: Divide by the square root.
        index: Leading bits of `v` that are looked at, without the first one; further ones are cut off.
        table: Nonnegative, `2**index` entries, twice as many for the root.
        shift: Bits that go whatever `v` is.
        rounding: As for `Requantize`.
    """

    root: bool
    index: int
    table: Integers
    shift: int
    rounding: str = "even"


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """Sum or maximum over windows of `(*space, channels)`; windows lie inside the padded input.

    Attributes:
        kind: "sum" (padding is zeros) or "max" (padding never wins).
        kernel: Of each axis of space.
        stride: Of each axis of space.
        padding: Before and after, of each axis of space.
    """

    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class MatMul(Operation):
    """`a @ b` of `(*batch, m, k)` and `(*batch, k, n)`, or of `(*batch, n, k)` if `transposed`: two streams.

    Attributes:
        transposed: Rows of `b` are what rows of `a` are multiplied with.
    """

    transposed: bool = False


@dataclass(frozen=True, eq=False)
class Embed(Operation):
    """Rows of a table, `(n, d)`, chosen by codes; the result has one axis more.

    Attributes:
        table: Codes, `(n, d)`.
    """

    table: Integers


@dataclass(frozen=True, eq=False)
class Aggregate(Operation):
    """A fixed sparse matrix times `(nodes, channels)`: what a node hears from its neighbors.

    Attributes:
        matrix: Codes, `(nodes out, nodes in)`.
    """

    matrix: Integers


@dataclass(frozen=True, eq=False)
class Permute(Operation):
    """Axes in another order.

    Attributes:
        axes: The input's axis that becomes each of the output's.
    """

    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Reshape(Operation):
    """The same numbers in the same order under the output's shape: only wires."""


@dataclass(frozen=True, eq=False)
class Slice(Operation):
    """A part of one axis.

    Attributes:
        axis: Which.
        start: First index.
        stop: Index after the last.
        step: Distance.
    """

    axis: int
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True, eq=False)
class Concat(Operation):
    """Inputs one after the other along an axis.

    Attributes:
        axis: Which.
    """

    axis: int


@dataclass(frozen=True, eq=False)
class Spread(Operation):
    """Zeros between the numbers of each axis of space, as before a transposed convolution.

    Attributes:
        stride: Distance of what was next to each other, of each axis of space.
    """

    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Repeat(Operation):
    """Each number of space repeated: nearest-neighbor upsampling.

    Attributes:
        times: Of each axis of space.
    """

    times: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in an order in which each finds its inputs made.

    Attributes:
        inputs: What comes in.
        operations: What is done.
        outputs: Names of what goes out.
    """

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    structure: Mapping[str, object] = field(default_factory=dict)
    """How the model's own arguments and results are made of these."""

    @cached_property
    def values(self) -> dict[str, Value]:
        """Every value by name."""
        return {value.name: value for value in [*self.inputs, *(each.output for each in self.operations)]}

    def run(self, *codes: Integers) -> tuple[Integers, ...]:
        """Codes of the outputs, `(batch, *shape)`, from those of the inputs."""
        return tuple(self.trace(*codes)[name] for name in self.outputs)

    def trace(self, *codes: Integers) -> dict[str, Integers]:
        """Codes of every value."""
        known = {value.name: given for value, given in zip(self.inputs, codes, strict=True)}
        for each in self.operations:
            known[each.output.name] = each.run(*(known[name] for name in each.inputs))
        return known

    def readers(self, name: str) -> Sequence[Operation]:
        """The operations that read a value."""
        return [each for each in self.operations if name in each.inputs]
