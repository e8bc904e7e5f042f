"""Unrolled programs: the wires carry the numbers of the integer program, whatever the operations are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.errors import GraphError
from planish.targets.fpga.operations.base import Operation
from planish.targets.fpga.program import (
    Add,
    Aggregate,
    Codes,
    Concat,
    Constant,
    Convolve,
    Integers,
    Linear,
    Lookup,
    Multiply,
    Permute,
    Pool,
    Program,
    Reduce,
    Repeat,
    Requantize,
    Reshape,
    Slice,
    Spread,
    Value,
)
from planish.targets.fpga.unrolled.circuit import Circuit, Clamp, Sum
from planish.targets.fpga.unrolled.unroll import unroll, unsupported
from tests.targets.fpga.programs import mlp_program, random_codes

RNG = np.random.default_rng(0)
WIDE = Codes(-(2**30), 2**30)


def wires(program: Program, codes: Sequence[Integers]) -> dict[str, Integers]:
    """The inputs of the circuit: unsigned words of the codes."""
    return {
        value.name: x.reshape(len(x), -1) & (1 << value.codes.bits) - 1
        for value, x in zip(program.inputs, codes, strict=True)
    }


def assert_unrolls(program: Program, samples: int = 60) -> Circuit:
    """The circuit gives what the program gives, also where all inputs are as low or as high as they may be."""
    circuit = unroll(program)
    codes = [
        np.concatenate([x, *(np.full((1, *value.shape), end) for end in (value.codes.low, value.codes.high))])
        for x, value in zip(random_codes(program, samples), program.inputs, strict=True)
    ]
    made = circuit.run(wires(program, codes))
    for name, expected in zip(program.outputs, program.run(*codes), strict=True):
        assert np.array_equal(made[name], expected.reshape(len(expected), -1)), name
    return circuit


def one(operation: Operation, *inputs: Value) -> Program:
    """A program of one operation."""
    return Program(inputs, (operation,), (operation.output.name,))


@given(
    st.integers(1, 7),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(2, 6),
    st.integers(0, 6),
    st.sampled_from(["even", "up", "floor"]),
    st.sampled_from([1, 3, 13]),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=40)
def test_random_perceptrons(
    taken: int, hidden: int, given_out: int, bits: int, shift: int, rounding: str, factor: int, signed: bool, seed: int
) -> None:
    rng, top = np.random.default_rng(seed), 1 << bits - 1
    x = Value("x", (taken,), Codes(-top, top - 1) if signed else Codes(0, 2 * top - 1))
    codes = Codes(-top if signed else 0, top - 1 + top * (not signed), -shift)
    operations = (
        Linear(
            ("x",), Value("s", (hidden,), WIDE), rng.integers(-top, top, (hidden, taken)), rng.integers(-99, 99, hidden)
        ),
        Requantize(("s",), Value("a", (hidden,), codes), np.full(hidden, factor), shift, rounding),
        Linear(("a",), Value("z", (given_out,), WIDE), rng.integers(-top, top, (given_out, hidden))),
        Requantize(("z",), Value("y", (given_out,), Codes(-20, 20)), np.array(1), shift, rounding),
    )
    assert_unrolls(Program((x,), operations, ("y", "a")), 30)


@pytest.mark.parametrize("rounding", ["even", "halfup", "down"])
def test_a_lowered_perceptron(rounding: str) -> None:
    assert_unrolls(mlp_program((5, 4, 3), 4, rounding))


def image(name: str, *shape: int, low: int = -8, high: int = 7) -> Value:
    return Value(name, shape, Codes(low, high))


@pytest.mark.parametrize(
    "program",
    [
        one(
            Convolve(
                ("x",), image("y", 3, 3, 4, low=-999, high=999), RNG.integers(-4, 4, (4, 2, 2, 1)),
                RNG.integers(-9, 9, 4), (2, 1), ((1, 1), (0, 1)), (1, 1), 2,
            ),
            image("x", 4, 3, 2),
        ),
        one(
            Add(("x", "z"), Value("y", (2, 3), Codes(-99, 99, 1)), (1, 0), (1, -1)),
            image("x", 2, 3),
            Value("z", (2, 3), Codes(0, 5, 1)),
        ),
        one(Aggregate(("x",), image("y", 3, 2, low=-99, high=99), RNG.integers(-2, 3, (3, 4))), image("x", 4, 2)),
        one(Reduce(("x",), image("y", 2, 1, low=-99, high=99), "sum"), image("x", 2, 5)),
        one(Pool(("x",), image("y", 2, 3, low=-99, high=99), "sum", (2,), (2,), ((0, 0),)), image("x", 4, 3)),
        one(Lookup(("x",), image("y", 3, low=-9, high=9), RNG.integers(-9, 10, 16), -8), image("x", 3)),
        one(Permute(("x",), image("y", 3, 2), (1, 0)), image("x", 2, 3)),
        one(Reshape(("x",), image("y", 6)), image("x", 2, 3)),
        one(Slice(("x",), image("y", 2, 2), 1, 0, 3, 2), image("x", 2, 3)),
        one(Concat(("x", "z"), image("y", 2, 4), 1), image("x", 2, 3), image("z", 2, 1)),
        one(Spread(("x",), image("y", 3, 2), (2,)), image("x", 2, 2)),
        one(Repeat(("x",), image("y", 4, 2), (2,)), image("x", 2, 2)),
        one(Requantize(("x",), image("y", 3, low=0, high=3), np.array([1, 2, 5]), 2, "even"), image("x", 3)),
    ],
    ids=lambda program: type(program.operations[0]).__name__,
)  # fmt: skip
def test_each_operation(program: Program) -> None:
    assert_unrolls(program)


def test_a_sum_that_is_read_twice_is_not_rounded_on_the_way() -> None:
    total = Linear(("x",), image("s", 3, low=-999, high=999), RNG.integers(-7, 8, (3, 4)))
    rounded = Requantize(("s",), image("r", 3), np.array(1), 3, "even")
    program = Program((image("x", 4),), (total, rounded), ("r", "s"))
    assert_unrolls(program)


def test_weights_of_zero_and_constants_need_no_adders() -> None:
    x = image("x", 3)
    silent = Linear(("x",), image("s", 2, low=-9, high=9), np.zeros((2, 3), np.int64), np.array([4, -7]))
    assert assert_unrolls(one(silent, x)).outputs["s"][1].high == -7
    beside = Concat(("x", "c"), image("y", 5), 0)
    program = Program((x,), (Constant((), image("c", 2), np.array([3, -2])), beside), ("y",))
    assert not any(isinstance(node, Sum) for node in assert_unrolls(program).nodes)


def test_what_cannot_saturate_is_not_clamped() -> None:
    total = Linear(("x",), image("s", 1, low=-99, high=99), np.array([[3, 1]]))
    whole = Requantize(("s",), image("y", 1, low=-64, high=63), np.array(1), 0, "floor")
    circuit = assert_unrolls(Program((image("x", 2),), (total, whole), ("y",)))
    assert not any(isinstance(node, Clamp) for node in circuit.nodes)


def test_what_is_refused_is_named() -> None:
    x, z = image("x", 3), image("z", 3)
    product = one(Multiply(("x", "z"), image("y", 3, low=-99, high=99)), x, z)
    assert unsupported(product) == [("y", "Multiply is not unrolled")]
    with pytest.raises(GraphError, match="Multiply"):
        unroll(product)
    most = one(Pool(("x",), image("y", 2, 3), "max", (2,), (2,), ((0, 0),)), image("x", 4, 3))
    assert unsupported(most) == [("y", "Pool is not unrolled")]
    wide = Value("x", (1,), Codes(0, 2**13 - 1))
    table = one(Lookup(("x",), image("y", 1), np.zeros(2**13, np.int64), 0), wide)
    assert "8192 entries" in unsupported(table)[0][1]
    large = one(
        Linear(("x",), image("y", 300, low=-(2**20), high=2**20), np.ones((300, 200), np.int64)), image("x", 200)
    )
    assert "60000 multiplications" in unsupported(large)[0][1]
