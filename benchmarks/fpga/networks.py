"""Random small networks to synthesize: perceptrons, pictures and sequences that the cost model is never fitted on, and
sums of two ways, which are most of what splits, waits and changes lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.fpga.designs import Rng, codes, fold, made, weights
from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.program import (
    Add,
    Constant,
    Convolve,
    Embed,
    Linear,
    Lookup,
    MatMul,
    Normalize,
    Operation,
    Pool,
    Program,
    Reduce,
    Requantize,
    Reshape,
    Value,
)
from planish.targets.fpga.streamed.netlist import Netlist, connect
from planish.targets.fpga.streamed.queues import depths


@dataclass
class _Drawn:
    """A program as it grows, with folds drawn at random."""

    rng: Rng
    inputs: tuple[Value, ...]
    most: int = 24
    operations: list[Operation] = field(default_factory=list)
    folds: dict[str, Fold] = field(default_factory=dict)

    def add(self, operation: Operation, *inputs: Value) -> Value:
        """The operation's value, under a name of its own."""
        name = f"value{len(self.operations)}"
        named = replace(operation, output=replace(operation.output, name=name, path=name))
        self.operations.append(named)
        if not isinstance(named, Reshape):
            self.folds[name] = fold(self.rng, named, inputs, self.most)
        return named.output

    def made(self, form: type[Operation], inputs: tuple[Value, ...], shape: tuple[int, ...], **fields: Any) -> Value:
        """A value that holds just what can come out."""
        return self.add(made(form, inputs, shape, **fields), *inputs)

    def rounded(self, x: Value, bits: int, signed: bool) -> Value:
        """A value in fewer bits."""
        out = Value("out", x.shape, codes(bits, signed))
        return self.add(Requantize((x.name,), out, np.array(1), max(x.codes.bits - bits - 2, 1)), x)

    def netlist(self, last: Value) -> Netlist:
        """The design that gives this value, with queues where ways meet."""
        program = Program(self.inputs, tuple(self.operations), (last.name,))
        return connect(program, self.folds, depths(connect(program, self.folds)))


def perceptron(number: int) -> Netlist:
    """A chain of layers with activations between them."""
    rng = np.random.default_rng([9, number])
    sizes = [int(2 ** rng.uniform(3, 6.5)) for _ in range(rng.integers(3, 5))]
    bits, weight_bits = int(rng.integers(3, 9)), int(rng.integers(2, 9))
    x = Value("x", (sizes[0],), codes(bits, False))
    drawn = _Drawn(rng, (x,))
    for layer, size in enumerate(sizes[1:]):
        weight = weights(rng, (size, sizes[layer]), weight_bits)
        x = drawn.made(Linear, (x,), (size,), weight=weight, bias=weights(rng, (size,), 10))
        x = drawn.rounded(x, bits, False)
    return drawn.netlist(x)


def picture(number: int) -> Netlist:
    """Convolutions with a residual and a pooling between them, and a layer over what is left."""
    rng = np.random.default_rng([5, number])
    side, channels, bits = 2 * int(rng.integers(4, 9)), int(rng.integers(4, 13)), int(rng.integers(4, 8))
    image = Value("x", (side, side, int(rng.integers(1, 4))), codes(bits, False))
    drawn = _Drawn(rng, (image,), 16)

    def convolved(x: Value, signed: bool) -> Value:
        weight = weights(rng, (channels, 3, 3, x.row), int(rng.integers(3, 8)))
        ones: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1),) * 2, "dilation": (1, 1), "groups": 1}
        sums = drawn.made(
            Convolve, (x,), (side, side, channels), weight=weight, bias=weights(rng, (channels,), 10), **ones
        )
        return drawn.rounded(sums, bits, signed)

    first = convolved(image, False)
    second = convolved(first, True)
    joined = drawn.made(Add, (first, second), first.shape, shifts=(0, 0), signs=(1, 1))
    x = drawn.rounded(joined, bits, False)
    pooling: dict[str, Any] = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0),) * 2}
    x = drawn.made(Pool, (x,), (side // 2, side // 2, channels), kind=str(rng.choice(["sum", "max"])), **pooling)
    flat = drawn.made(Reshape, (x,), (x.size,))
    x = drawn.made(Linear, (flat,), (10,), weight=weights(rng, (10, flat.size), 4), bias=None)
    return drawn.netlist(x)


def sequence(number: int) -> Netlist:
    """Words as rows of a table, and attention of one head over them: products, a softmax, products."""
    rng = np.random.default_rng([3, number])
    words, width, bits = int(rng.integers(4, 13)), 4 * int(rng.integers(2, 7)), int(rng.integers(5, 9))
    chosen = Value("x", (words,), codes(5, False))
    drawn = _Drawn(rng, (chosen,), 12)
    x = drawn.made(Embed, (chosen,), (words, width), table=weights(rng, (32, width), bits))

    def projected() -> Value:
        return drawn.rounded(
            drawn.made(Linear, (x,), x.shape, weight=weights(rng, (width, width), 4), bias=None), bits, True
        )

    query, key, value = projected(), projected(), projected()
    scores = drawn.made(MatMul, (query, key), (words, words), transposed=True)
    scores = drawn.rounded(scores, bits, True)
    most = drawn.made(Reduce, (scores,), (words, 1), kind="max")
    less = drawn.made(Add, (scores, most), scores.shape, shifts=(0, 0), signs=(1, -1))
    reach = np.arange(less.codes.low, less.codes.high + 1)
    table = np.minimum(np.round(np.exp(reach / 2**bits * 4) * 255), 255).astype(np.int64)
    powers = drawn.made(Lookup, (less,), less.shape, table=table, base=less.codes.low)
    total = drawn.made(Reduce, (powers,), (words, 1), kind="sum")
    factors = np.round(2**9 / (1 + np.arange(32) / 32)).astype(np.int64)
    shares = Normalize(
        (powers.name, total.name),
        Value("out", powers.shape, codes(bits, False)),
        root=False,
        index=5,
        table=factors,
        shift=2,
    )
    shared = drawn.add(shares, powers, total)
    mixed = drawn.made(MatMul, (shared, value), (words, width), transposed=False)
    return drawn.netlist(drawn.rounded(mixed, bits, True))


def residual(number: int) -> Netlist:
    """A number and its rounded self added: what splits, waits and changes lanes between blocks."""
    rng = np.random.default_rng([7, number])
    row, bits = int(2 ** rng.uniform(3, 7)), int(rng.integers(5, 17))
    x = Value("x", (row,), codes(bits, True))
    rounded = Requantize(("x",), Value("rounded", (row,), codes(bits - 2, True)), np.array(1), 2)
    total = made(Add, (x, rounded.output), (row,), shifts=(0, 0), signs=(1, 1))
    total = replace(total, output=replace(total.output, name="total"))
    offset = made(Constant, (), (row,), value=weights(rng, (row,), int(rng.integers(3, 9))))
    offset = replace(offset, output=replace(offset.output, name="offset"))
    moved = made(Add, (total.output, offset.output), (row,), shifts=(0, 0), signs=(1, 1))
    program = Program((x,), (rounded, total, offset, moved), ("out",))
    folds = {
        "rounded": fold(rng, rounded, (x,), 16),
        "total": fold(rng, total, (x, rounded.output), 16),
        "offset": fold(rng, offset, (), 16),
        "out": fold(rng, moved, (total.output, offset.output), 16),
    }
    return connect(program, folds, {"total.a": int(2 ** rng.uniform(1, 8))})


SHARED: dict[Callable[[int], Netlist], int] = {residual: 14}
"""Designs of several blocks that the model is fitted on, and how many of each."""
HELD_OUT: dict[Callable[[int], Netlist], int] = {perceptron: 6, picture: 5, sequence: 5}
"""Networks that it is never fitted on."""
