"""Random blocks to synthesize: one operation of every kind, folded at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.program import (
    Add,
    Aggregate,
    Codes,
    Concat,
    Convolve,
    Embed,
    Linear,
    Lookup,
    MatMul,
    Microscale,
    Multiply,
    Normalize,
    Operation,
    Permute,
    Pool,
    Program,
    Reduce,
    Repeat,
    Requantize,
    Slice,
    Spread,
    Value,
)
from planish.targets.fpga.streamed.netlist import Netlist, block_of, connect

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


def convolve(rng: Rng, depthwise: bool = False) -> tuple[Operation, tuple[Value, ...]]:
    channels, out = (int(2 ** rng.uniform(1, 5)) for _ in range(2))
    out = channels if depthwise else out
    axes = int(rng.choice([1, 2, 2, 2, 3]))
    most = {1: 40, 2: 16, 3: 8}[axes]
    sizes = tuple(int(size) for size in rng.integers(6, most, axes))
    kernel, stride = int(rng.choice([1, 3, 3, 3, 5])), int(rng.choice([1, 1, 2]))
    pad = int(rng.choice([0, kernel // 2]))
    x = Value("x", (*sizes, channels), codes(int(rng.integers(3, 9)), bool(rng.integers(2))))
    counts = tuple((size + 2 * pad - kernel) // stride + 1 for size in sizes)
    fields = {
        "weight": weights(
            rng, (out, *(kernel,) * axes, 1 if depthwise else channels), int(rng.choice([1, 3, 4, 5, 6, 7, 8]))
        ),
        "bias": weights(rng, (out,), 10),
        "stride": (stride,) * axes,
        "padding": ((pad, pad),) * axes,
        "dilation": (1,) * axes,
        "groups": channels if depthwise else 1,
    }
    return made(Convolve, (x,), (*counts, out), **fields), (x,)


def depthwise(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    return convolve(rng, depthwise=True)


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
    made = codes(bits, bool(rng.integers(2)))
    rounding = str(rng.choice(["even", "even", "up", "floor"]))
    if made.low < 0 and rng.random() < 0.5:
        made = replace(made, low=made.low + 1)  # a range that is narrow, as signed formats often are
    out = Value("out", (row,), made)
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


def microscale(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    group, high = int(rng.choice([8, 16, 32])), (1 << int(rng.integers(3, 8))) - 1
    x = Value("x", (4, int(2 ** rng.uniform(3, 7))), codes(int(rng.integers(10, 19)), bool(rng.random() < 0.7)))
    low = -high - 1 if x.codes.signed else 0
    return made(Microscale, (x,), x.shape, group=group, low=low, high=high), (x,)


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


def numbers(rng: Rng, shape: tuple[int, ...]) -> Value:
    return Value("x", shape, codes(int(rng.integers(3, 13)), bool(rng.integers(2))))


def cut(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    rows, row, axis = int(rng.integers(4, 30)), int(2 ** rng.uniform(2, 6)), int(rng.integers(2))
    start = int(rng.integers(0, (rows, row)[axis] // 2))
    stop = int(rng.integers(start + 1, (rows, row)[axis] + 1))
    x = numbers(rng, (rows, row))
    shape = [rows, row]
    shape[axis] = stop - start
    return made(Slice, (x,), tuple(shape), axis=axis, start=start, stop=stop), (x,)


def join(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    row, axis = 4 * int(rng.integers(1, 12)), int(rng.integers(2))
    a, b = (replace(numbers(rng, (int(rng.integers(1, 20)) if axis == 0 else 4, row)), name=name) for name in "ab")
    shape = (a.shape[0] + b.shape[0], row) if axis == 0 else (4, 2 * row)
    return made(Concat, (a, b), shape, axis=axis), (a, b)


def spread(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    axes, stride = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    sizes = [int(size) for size in rng.integers(2, 9, axes)]
    x = numbers(rng, (*sizes, int(2 ** rng.uniform(1, 5))))
    return made(Spread, (x,), (*((n - 1) * stride + 1 for n in sizes), x.row), stride=(stride,) * axes), (x,)


def repeat(rng: Rng) -> tuple[Operation, tuple[Value, ...]]:
    axes, times = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    sizes = [int(size) for size in rng.integers(2, 9, axes)]
    x = numbers(rng, (*sizes, int(2 ** rng.uniform(1, 5))))
    return made(Repeat, (x,), (*(n * times for n in sizes), x.row), times=(times,) * axes), (x,)


KINDS: dict[Callable[[Rng], tuple[Operation, tuple[Value, ...]]], int] = {
    linear: 36,
    requantize: 20,
    lookup: 18,
    add: 8,
    multiply: 10,
    reduce: 8,
    convolve: 16,
    depthwise: 8,
    pool: 8,
    matmul: 12,
    normalize: 10,
    microscale: 12,
    permute: 8,
    embed: 6,
    aggregate: 8,
    cut: 4,
    join: 4,
    spread: 4,
    repeat: 4,
}
"""Kinds of single blocks, and how many of each."""
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
