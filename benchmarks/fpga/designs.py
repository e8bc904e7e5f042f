"""Random designs to synthesize: single blocks of every kind, and small networks that none of them was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.netlist import Netlist, block_of, connect
from planish.targets.fpga.program import (
    Add,
    Aggregate,
    Codes,
    Constant,
    Convolve,
    Embed,
    Linear,
    Lookup,
    MatMul,
    Multiply,
    Normalize,
    Operation,
    Permute,
    Pool,
    Program,
    Reduce,
    Requantize,
    Value,
)

Rng = np.random.Generator
PARALLEL = 16
"""Most products, or lanes, of a block."""


def codes(bits: int, signed: bool, frac: int = 0) -> Codes:
    """All codes of a word."""
    low = -(1 << bits - 1) if signed else 0
    return Codes(low, low + (1 << bits) - 1, frac)


def weights(rng: Rng, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """Like those of a trained layer: normal, the largest at the end of the range."""
    top = (1 << bits - 1) - 1 if bits > 1 else 1
    drawn = rng.normal(size=shape)
    return np.clip(np.round(drawn / np.abs(drawn).max() * (top + 0.49)), -top - (bits > 1), top).astype(np.int64)


def made(form: type[Operation], inputs: tuple[Value, ...], shape: tuple[int, ...], **fields: Any) -> Operation:
    """An operation whose output holds just what can come out."""
    names = tuple(value.name for value in inputs)
    loose = form(names, Value("out", shape, Codes(-(2**61), 2**61)), **fields)
    low, high = loose.bounds(*inputs)
    frac = inputs[0].codes.frac if inputs else 0
    return form(names, Value("out", shape, Codes(min(low, 0), high, frac)), **fields)


def linear(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    rows, columns = (int(2 ** rng.uniform(3, 7)) for _ in range(2))
    x = Value("x", (columns,), codes(int(rng.integers(2, 11)), bool(rng.integers(2))))
    bits = int(rng.choice([1, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8]))
    bias = weights(rng, (rows,), 12) if rng.random() < 0.8 else None
    return made(Linear, (x,), (rows,), weight=weights(rng, (rows, columns), bits), bias=bias), (x,)


def convolve(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    channels, out = (int(2 ** rng.uniform(1, 5)) for _ in range(2))
    side, kernel = int(rng.integers(6, 20)), int(rng.choice([1, 3, 3, 3, 5]))
    depthwise = rng.random() < 0.3
    out = channels if depthwise else out
    x = Value("x", (side, side, channels), codes(int(rng.integers(3, 9)), bool(rng.integers(2))))
    pad = int(rng.choice([0, kernel // 2]))
    size = side + 2 * pad - kernel + 1
    fields = {
        "weight": weights(rng, (out, kernel, kernel, 1 if depthwise else channels), int(rng.integers(3, 9))),
        "bias": weights(rng, (out,), 10),
        "stride": (1, 1),
        "padding": ((pad, pad), (pad, pad)),
        "dilation": (1, 1),
        "groups": channels if depthwise else 1,
    }
    return made(Convolve, (x,), (size, size, out), **fields), (x,)


def requantize(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    row, bits = int(2 ** rng.uniform(2, 7)), int(rng.integers(2, 11))
    x = Value("x", (row,), codes(int(rng.integers(bits + 1, 25)), True))
    kind = rng.integers(3)
    size = int(rng.integers(3, 17))
    multiplier = [
        np.array(1),
        rng.integers(1 << size - 1, 1 << size),
        rng.integers(1 << size - 2, 1 << size, row),
    ][kind]
    shift = max(x.codes.bits - bits + (size if kind else 0) - int(rng.integers(0, 3)), 1)
    out = Value("out", (row,), codes(bits, bool(rng.integers(2))))
    rounding = str(rng.choice(["even", "even", "up", "floor"]))
    return Requantize(("x",), out, np.asarray(multiplier), shift, rounding), (x,)


FUNCTIONS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    np.tanh,
    lambda x: x / (1 + np.exp(-x)),
    lambda x: 1 / (1 + np.exp(-x)),
    lambda x: np.maximum(x, 0),
    lambda x: np.exp(-np.abs(x)),
)


def lookup(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    row, bits = int(2 ** rng.uniform(2, 6)), int(rng.integers(3, 11))
    x = Value("x", (row,), codes(bits, True))
    y = FUNCTIONS[rng.integers(len(FUNCTIONS))](np.arange(x.codes.low, x.codes.high + 1) * 8 / (1 << bits))
    top = (1 << int(rng.integers(2, 9))) - 1
    table = np.round(y / np.abs(y).max() * top).astype(np.int64)
    return made(Lookup, (x,), (row,), table=table, base=x.codes.low), (x,)


def pair(rng: Rng, kind: type[Operation], **fields: Any) -> tuple[Operation, tuple[Value, ...]]:
    rows, row = int(rng.integers(2, 17)), int(2 ** rng.uniform(2, 6))
    a = Value("a", (rows, row), codes(int(rng.integers(3, 17)), bool(rng.integers(2))))
    shape = [(rows, row), (rows, 1), (row,)][rng.integers(3)]
    b = Value("b", shape, codes(int(rng.integers(3, 17)), bool(rng.integers(2))))
    return made(kind, (a, b), (rows, row), **fields), (a, b)


def add(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    return pair(rng, Add, shifts=(0, 0), signs=(1, int(rng.choice([1, -1]))))


def multiply(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    return pair(rng, Multiply)


def reduce(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    x = Value("x", (4, int(2 ** rng.uniform(2, 7))), codes(int(rng.integers(3, 17)), bool(rng.integers(2))))
    return made(Reduce, (x,), (4, 1), kind=str(rng.choice(["sum", "max"]))), (x,)


def pool(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    size, kernel, channels = int(rng.integers(3, 9)), int(rng.integers(2, 4)), int(2 ** rng.uniform(1, 5))
    x = Value("x", (size * kernel, size * kernel, channels), codes(int(rng.integers(3, 11)), bool(rng.integers(2))))
    fields = {"kind": str(rng.choice(["sum", "max"])), "kernel": (kernel,) * 2, "stride": (kernel,) * 2}
    return made(Pool, (x,), (size, size, channels), **fields, padding=((0, 0), (0, 0))), (x,)


def normalize(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    row, root, index = int(2 ** rng.uniform(2, 6)), bool(rng.integers(2)), int(rng.integers(3, 8))
    x = Value("x", (4, row), codes(int(rng.integers(6, 19)), root))
    v = Value("v", (4, 1), codes(int(rng.integers(10, 25)), False))
    size = int(rng.integers(6, 13))
    table = np.sort(rng.integers(1 << size - 1, 1 << size, 2 ** (index + root)))[::-1]
    out = Value("out", (4, row), codes(int(rng.integers(4, 10)), root))
    shift = size + int(rng.integers(0, 3))
    return Normalize(("x", "v"), out, root=root, index=index, table=table, shift=shift), (x, v)


def matmul(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    m, k, n = (int(2 ** rng.uniform(2, 6)) for _ in range(3))
    transposed = bool(rng.integers(2))
    a = Value("a", (m, k), codes(int(rng.integers(4, 10)), bool(rng.integers(2))))
    b = Value("b", (n, k) if transposed else (k, n), codes(int(rng.integers(4, 10)), True))
    return made(MatMul, (a, b), (m, n), transposed=transposed), (a, b)


def permute(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    shape = tuple(int(2 ** rng.uniform(1, 5)) for _ in range(3))
    x = Value("x", shape, codes(int(rng.integers(3, 17)), True))
    axes = [(1, 0, 2), (0, 2, 1), (2, 1, 0)][rng.integers(3)]
    return Permute(("x",), replace(x, name="out", shape=tuple(shape[axis] for axis in axes)), axes), (x,)


def embed(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    size, width = int(2 ** rng.uniform(4, 8)), int(2 ** rng.uniform(3, 6))
    x = Value("x", (8,), Codes(0, size - 1))
    return made(Embed, (x,), (8, width), table=weights(rng, (size, width), int(rng.integers(3, 9)))), (x,)


def aggregate(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    nodes, channels = int(2 ** rng.uniform(3, 6)), int(2 ** rng.uniform(2, 5))
    x = Value("x", (nodes, channels), codes(int(rng.integers(4, 10)), bool(rng.integers(2))))
    matrix = weights(rng, (nodes, nodes), int(rng.integers(3, 9))) * (rng.random((nodes, nodes)) < 4 / nodes)
    return made(Aggregate, (x,), (nodes, channels), matrix=matrix), (x,)


KINDS: dict[Callable[[Rng], tuple[Operation, tuple[Value, ...]]], int] = {
    linear: 36,
    requantize: 20,
    lookup: 12,
    add: 8,
    multiply: 10,
    reduce: 8,
    convolve: 12,
    pool: 8,
    matmul: 12,
    normalize: 10,
    permute: 8,
    embed: 6,
    aggregate: 8,
}
"""Kinds of single blocks, and how many of each."""
NETWORKS = 10
RESIDUALS = 10
FOLDED = 1000
"""Seeds from here on are those of folds."""


def fold(rng: Rng, operation: Operation, inputs: tuple[Value, ...], most: int = PARALLEL) -> Fold:
    """One of an operation's folds, of limited parallelism."""
    products = isinstance(operation, Linear | Convolve | MatMul)
    folds = block_of(operation).folds(operation, inputs)
    found = [each for each in folds if (each.simd * each.pe if products else max(each.simd, each.pe)) <= most]
    chosen = found[rng.integers(len(found))] if found else folds[0]
    return replace(chosen, dsp=bool(rng.random() < 0.6))


def single(kind: Callable[[Rng], tuple[Operation, tuple[Value, ...]]], number: int) -> Program:
    """A program of one operation."""
    operation, inputs = kind(_rng(kind.__name__, number))
    return Program(inputs, (operation,), ("out",))


def together(programs: Mapping[str, Program]) -> Netlist:
    """Programs of one operation beside each other in one design; each makes a value of its own name."""
    inputs, operations, folds = [], [], {}
    for name, program in programs.items():
        (operation,) = program.operations
        kind, _, number = name.partition("-")
        chosen = fold(_rng(kind, int(number) + FOLDED), operation, program.inputs)
        given = [replace(value, name=f"{name}_{value.name}") for value in program.inputs]
        made = replace(operation.output, name=name, path=name)
        operations.append(replace(operation, inputs=tuple(value.name for value in given), output=made))
        inputs += given
        folds[name] = chosen
    return connect(Program(tuple(inputs), tuple(operations), tuple(programs)), folds)


def _rng(kind: str, number: int) -> Rng:
    return np.random.default_rng([len(kind), sum(map(ord, kind)), number])


def network(number: int) -> Netlist:
    """A chain of layers with activations between them, folded at random."""
    rng = np.random.default_rng([9, number])
    sizes = [int(2 ** rng.uniform(3, 6.5)) for _ in range(rng.integers(3, 5))]
    bits, weight_bits = int(rng.integers(3, 9)), int(rng.integers(2, 9))
    x = Value("x", (sizes[0],), codes(bits, False))
    value, operations, folds = x, [], {}
    for layer, size in enumerate(sizes[1:]):
        weight = weights(rng, (size, sizes[layer]), weight_bits)
        sums = made(Linear, (value,), (size,), weight=weight, bias=weights(rng, (size,), 10))
        sums = replace(sums, output=replace(sums.output, name=f"sum{layer}"))
        rounded = Value(f"value{layer}", (size,), codes(bits, False))
        shift = max(sums.output.codes.bits - bits - 2, 1)
        rounding = Requantize((sums.output.name,), rounded, np.array(1), shift)
        for operation, given in ((sums, value), (rounding, sums.output)):
            operations.append(operation)
            folds[operation.output.name] = fold(rng, operation, (given,), 24)
        value = rounded
    return connect(Program((x,), tuple(operations), (value.name,)), folds)


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
