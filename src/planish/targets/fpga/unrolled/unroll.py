"""The integer program as one circuit: every number of every value has wires of its own."""

from __future__ import annotations

from math import prod

import numpy as np

from planish.errors import GraphError
from planish.targets.fpga.operations.base import Operation, Value
from planish.targets.fpga.program import (
    Add,
    Aggregate,
    Concat,
    Constant,
    Convolve,
    Integers,
    Linear,
    Lookup,
    Permute,
    Pool,
    Program,
    Reduce,
    Repeat,
    Requantize,
    Reshape,
    Slice,
    Spread,
)
from planish.targets.fpga.unrolled.builder import Builder
from planish.targets.fpga.unrolled.circuit import Circuit, Word
from planish.targets.fpga.unrolled.share import Row, rows_of

WIDEST_TABLE = 12
"""Bits that a table may be indexed with: logic doubles with each."""
MOST = 50_000
"""Weights of an operation that are not zero."""
STREAM = 'mode="stream"'


def unsupported(program: Program) -> list[tuple[str, str]]:
    """What cannot be unrolled: the value's name and why."""
    found = []
    for each in program.operations:
        reason = ""
        if not isinstance(each, (Requantize, Lookup, Constant, *_MOVES, *_LINEAR)) or (
            isinstance(each, Pool | Reduce) and each.kind != "sum"
        ):
            reason = f"{type(each).__name__} is not unrolled"
        elif isinstance(each, Lookup) and program.values[each.inputs[0]].codes.bits > WIDEST_TABLE:
            reason = f"a table of {len(each.table)} entries is too large for logic"
        elif isinstance(each, Linear) and np.count_nonzero(each.weight) * prod(each.output.shape[:-1]) > MOST:
            reason = (
                f"{np.count_nonzero(each.weight) * prod(each.output.shape[:-1])} multiplications at once are too many"
            )
        if reason:
            found.append((each.output.path or each.output.name, reason))
    return found


def unroll(program: Program) -> Circuit:
    """The circuit that makes all outputs of a program at once.

    Raises:
        GraphError: An operation that cannot be unrolled.
    """
    for where, reason in unsupported(program):
        raise GraphError(reason, where, STREAM)
    builder = Builder()
    words: dict[str, list[Word]] = {}
    for value in program.inputs:
        builder.layer = value.name
        words[value.name] = [
            builder.input(value.name, lane, value.codes.low, value.codes.high) for lane in range(value.size)
        ]
    sums: dict[str, tuple[Operation, list[Row], list[int], list[Word]]] = {}
    for each in program.operations:
        builder.layer = each.output.name
        inputs = tuple(program.values[name] for name in each.inputs)
        if isinstance(each, Requantize):
            words[each.output.name] = _requantized(builder, each, words, sums, inputs[0])
        elif isinstance(each, Lookup):
            words[each.output.name] = [
                builder.lookup(word, each.table.tolist(), each.base) for word in words[each.inputs[0]]
            ]
        elif isinstance(each, Constant):
            words[each.output.name] = [Word.constant(int(number)) for number in each.value.ravel()]
        elif isinstance(each, _MOVES):
            words[each.output.name] = _moved(each, inputs, [words[name] for name in each.inputs])
        else:
            taken = [word for name in each.inputs for word in words[name]]
            matrix, constants = _matrix(each, inputs)
            readers = program.readers(each.output.name)
            if len(readers) == 1 and isinstance(readers[0], Requantize) and each.output.name not in program.outputs:
                # the sum and its rounding are one: the multiplier goes into the weights, the half into the bias
                factor = np.broadcast_to(readers[0].multiplier, each.output.shape).reshape(-1, 1)
                sums[each.output.name] = each, rows_of(matrix * factor), (constants * factor[:, 0]).tolist(), taken
            else:
                names = [f"{value.name}[{lane}]" for value in inputs for lane in range(value.size)]
                words[each.output.name] = builder.linear(taken, rows_of(matrix), constants.tolist(), names)
    return Circuit(tuple(builder.nodes), {name: tuple(words[name]) for name in program.outputs})


_LINEAR = (Linear, Convolve, Add, Aggregate, Reduce, Pool)
_MOVES = (Permute, Reshape, Slice, Concat, Spread, Repeat)


def _requantized(
    builder: Builder,
    each: Requantize,
    words: dict[str, list[Word]],
    sums: dict[str, tuple[Operation, list[Row], list[int], list[Word]]],
    value: Value,
) -> list[Word]:
    half = 1 << each.shift - 1 if each.shift > 0 and each.rounding != "floor" else 0
    if value.name in sums:
        made, rows, constants, taken = sums[value.name]
        builder.layer = made.output.name
        names = [f"{name}[{lane}]" for name in made.inputs for lane in range(len(words[name]))]
    else:
        factors = np.broadcast_to(each.multiplier, value.shape).reshape(-1)
        rows, constants, taken = rows_of(np.diag(factors)), [0] * value.size, words[value.name]
        names = [f"{value.name}[{lane}]" for lane in range(value.size)]
    totals = builder.linear(taken, rows, [constant + half for constant in constants], names)
    builder.layer = each.output.name
    codes = each.output.codes
    return [builder.shifted(word, each.shift, each.rounding, codes.low, codes.high) for word in totals]


def _matrix(each: Operation, inputs: tuple[Value, ...]) -> tuple[Integers, Integers]:
    """What a linear operation multiplies with, `(out, in)`, and what it adds: its answers to unit vectors and zeros."""
    sizes = [value.size for value in inputs]
    units = np.eye(sum(sizes), dtype=np.int64)
    parts = np.split(np.vstack([np.zeros_like(units[:1]), units]), np.cumsum(sizes)[:-1], axis=1)
    codes = [part.reshape(-1, *value.shape) for part, value in zip(parts, inputs, strict=True)]
    answers = each.run(*codes).reshape(len(units) + 1, -1)
    return (answers[1:] - answers[0]).T, answers[0]


def _moved(each: Operation, inputs: tuple[Value, ...], words: list[list[Word]]) -> list[Word]:
    """Wires in another order: where the operation takes each of them, zeros being its own."""
    flat = [word for part in words for word in part]
    ends = np.cumsum([0, *(value.size for value in inputs)])
    places = [
        np.arange(start + 1, end + 1).reshape(1, *value.shape)
        for start, end, value in zip(ends, ends[1:], inputs, strict=False)
    ]
    return [flat[place - 1] if place else Word.constant(0) for place in each.run(*places).ravel().tolist()]
