"""Slice, concat, spread, repeat, and the streams' own converters against the integer program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.program import (
    Add,
    Codes,
    Concat,
    Operation,
    Program,
    Repeat,
    Requantize,
    Slice,
    Spread,
    Value,
)
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.streamed.netlist import connect
from planish.targets.fpga.toolchain.simulate import simulate
from tests.targets.fpga.blocks.harness import check, value

WIDE = Codes(-(1 << 40), 1 << 40)
LONG = pytest.mark.long


def fitted(draft: Operation, *inputs: Value) -> Operation:
    """With the output's shape and bounds."""
    return replace(draft, output=Value("y", draft.shape(*inputs), Codes(*draft.bounds(*inputs))))


@pytest.mark.parametrize(
    ("axis", "start", "stop", "step", "lanes"),
    [
        (1, 1, 5, 2, 2),
        *(
            pytest.param(*case, marks=LONG)
            for case in [
                (0, 2, 3, 1, 4),
                (0, 0, 1, 1, 1),
                (2, 1, 4, 1, 3),
                (2, 0, 5, 4, 1),
                (2, 2, 4, 1, 2),
                (1, 0, 6, 3, 6),
            ]
        ),
    ],
)
def test_slices(axis: int, start: int, stop: int, step: int, lanes: int) -> None:
    x = value("x", (3, 6, 6), 5)
    operation = fitted(Slice(("x",), Value("y", (1,), WIDE), axis, start, stop, step), x)
    check(operation, (x,), Fold(lanes, lanes), samples=10000 // operation.output.size + 1, timing=False)


@pytest.mark.parametrize(
    ("a", "b", "axis", "lanes"),
    [
        ((2, 4), (3, 4), 0, 3),
        *(
            pytest.param(*case, marks=LONG)
            for case in [
                ((1, 5), (4, 5), 0, 2),
                ((3, 4), (3, 6), 1, 2),
                ((3, 4), (3, 5), 1, 4),
                ((2, 2, 3), (2, 5, 3), 1, 1),
            ]
        ),
    ],
)
def test_joined_streams(a: tuple[int, ...], b: tuple[int, ...], axis: int, lanes: int) -> None:
    inputs = value("a", a, 7), value("b", b, 5, signed=False)
    operation = fitted(Concat(("a", "b"), Value("y", (1,), WIDE), axis), *inputs)
    check(operation, inputs, Fold(lanes, lanes), samples=10000 // operation.output.size + 1)


@pytest.mark.parametrize(
    ("shape", "stride", "lanes"),
    [
        ((3, 4, 3), (2, 3), 2),
        *(
            pytest.param(*case, marks=LONG)
            for case in [((5, 2), (3,), 1), ((2, 3, 2, 1), (1, 2, 2), 1), ((3, 3, 2), (1, 1), 2)]
        ),
    ],
)
def test_zeros_between(shape: tuple[int, ...], stride: tuple[int, ...], lanes: int) -> None:
    x = value("x", shape, 5)
    operation = fitted(Spread(("x",), Value("y", (1,), WIDE), stride), x)
    check(operation, (x,), Fold(lanes, lanes), samples=10000 // operation.output.size + 1)


@pytest.mark.parametrize(
    ("shape", "times", "lanes"),
    [
        ((3, 4, 3), (2, 3), 2),
        *(
            pytest.param(*case, marks=LONG)
            for case in [((5, 2), (3,), 1), ((2, 3, 2, 1), (1, 2, 2), 1), ((3, 3, 2), (1, 2), 2)]
        ),
    ],
)
def test_repeated_places(shape: tuple[int, ...], times: tuple[int, ...], lanes: int) -> None:
    x = value("x", shape, 5)
    operation = fitted(Repeat(("x",), Value("y", (1,), WIDE), times), x)
    check(operation, (x,), Fold(lanes, lanes), samples=10000 // operation.output.size + 1)


@pytest.mark.parametrize(
    ("row", "first", "second", "depth"),
    [
        (11, 4, 6, 3),
        *(
            pytest.param(*case, marks=LONG)
            for case in [(7, 1, 3, 1), (7, 3, 1, 2), (10, 6, 4, 17), (5, 5, 2, 100), (9, 2, 9, 4), (6, 3, 3, 5)]
        ),
    ],
)
def test_lanes_splits_and_queues(row: int, first: int, second: int, depth: int) -> None:
    """A sum of what one stream becomes in two ways, of which one waits in a queue."""
    x = value("x", (2, row), 6)
    half = Requantize(("x",), Value("half", x.shape, Codes(-16, 15)), np.asarray(1), 1, "floor")
    codes = Codes(-80, 77)
    total = Add(("half", "x"), Value("y", x.shape, replace(codes, frac=0)), (0, 0), (1, 1))
    program = Program((x,), (half, total), ("y",))
    made = design(connect(program, {"half": Fold(first, first), "y": Fold(second, second)}, {"y.b": depth}))
    codes_in = np.random.default_rng(0).integers(-32, 32, (10000 // (2 * row), 2, row))
    for stall in (0, 30):
        found = simulate(made, [codes_in], stall=stall)
        assert not found.warnings, found.warnings
        np.testing.assert_array_equal(found.outputs[0], (codes_in >> 1) + codes_in)
