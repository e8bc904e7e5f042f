"""Requantize, lookup, add and constant against the integer program."""

from __future__ import annotations

import numpy as np
import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.program import Add, Codes, Constant, Integers, Lookup, Program, Requantize, Value
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.streamed.netlist import connect
from planish.targets.fpga.toolchain.simulate import simulate
from tests.targets.fpga.blocks.harness import check, value

ROUNDINGS = ["even", "up", "floor"]


def requantize(x: Value, multiplier: Integers | int, shift: int, codes: Codes, rounding: str = "even") -> Requantize:
    return Requantize((x.name,), Value("y", x.shape, codes), np.asarray(multiplier), shift, rounding)


def test_a_shift_that_rounds_half_to_even() -> None:
    x = value("x", (4, 9), 12)
    check(requantize(x, 8, 8, Codes(0, 63)), (x,), Fold(2, 2), samples=600)


@pytest.mark.long
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(
    ("bits", "signed", "multiplier", "shift", "codes"),
    [
        (12, True, 1, 4, Codes(-128, 127)),
        (12, True, 1, 1, Codes(-127, 127)),
        (12, False, 1, 5, Codes(0, 63)),
        (7, True, 1, 0, Codes(-3, 5)),
        (5, True, 1, -3, Codes(-100, 100)),
        (6, True, 1, 9, Codes(-8, 7)),
        (6, True, 1, 6, Codes(-8, 7)),
        (6, False, 1, 7, Codes(0, 1)),
        (18, True, 30011, 20, Codes(-128, 127)),
        (18, False, 30011, 20, Codes(2, 200)),
        (19, True, 30011, 22, Codes(-128, 127)),
        (19, False, 30011, 22, Codes(0, 255)),
        (30, True, 30011, 30, Codes(-2048, 2047)),
        (37, False, 30011, 39, Codes(0, 4095)),
        (9, True, 0, 2, Codes(-8, 7)),
    ],
)
def test_every_rounding(bits: int, signed: bool, multiplier: int, shift: int, codes: Codes, rounding: str) -> None:
    x = value("x", (5,), bits, signed)
    check(requantize(x, multiplier, shift, codes, rounding), (x,), Fold(2, 2), samples=2000)


@pytest.mark.long
@pytest.mark.parametrize("dsp", [True, False])
@pytest.mark.parametrize("lanes", [1, 3, 7])
def test_a_multiplier_for_each_channel(lanes: int, dsp: bool) -> None:
    x = value("x", (3, 7), 17)
    multiplier = np.random.default_rng(0).integers(1, 1 << 15, 7) * 2
    check(requantize(x, multiplier, 24, Codes(-128, 127)), (x,), Fold(lanes, lanes, dsp), samples=500)


@pytest.mark.parametrize(
    ("bits", "signed", "lanes"),
    [(8, True, 2), *(pytest.param(*case, marks=pytest.mark.long) for case in [(5, False, 3), (12, True, 1)])],
)
def test_a_table(bits: int, signed: bool, lanes: int) -> None:
    x = value("x", (3, 5), bits, signed)
    table = np.random.default_rng(0).integers(-100, 101, 1 << bits)
    check(Lookup((x.name,), Value("y", x.shape, Codes(-100, 100)), table, x.codes.low), (x,), Fold(lanes, lanes), 700)


@pytest.mark.long
def test_a_table_of_fewer_codes_than_their_word_holds() -> None:
    x = Value("x", (6,), Codes(-5, 9))
    table = np.random.default_rng(0).integers(0, 9, 15)
    check(Lookup((x.name,), Value("y", x.shape, Codes(0, 8)), table, -5), (x,), Fold(3, 3), 1700)


def added(a: Value, b: Value, shifts: tuple[int, int], signs: tuple[int, int]) -> Add:
    draft = Add(("a", "b"), Value("y", a.shape, Codes(-(1 << 40), 1 << 40)), shifts, signs)
    return Add(("a", "b"), Value("y", draft.shape(a, b), Codes(*draft.bounds(a, b))), shifts, signs)


@pytest.mark.parametrize(
    ("shape", "lanes", "signs"),
    [
        ((3, 1), 2, (1, -1)),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in [((3, 7), 3, (1, 1)), ((7,), 2, (-1, 1)), ((1,), 7, (-1, -1)), ((3, 7), 1, (1, -1))]
        ),
    ],
)
def test_sums(shape: tuple[int, ...], lanes: int, signs: tuple[int, int]) -> None:
    a, b = value("a", (3, 7), 8), value("b", shape, 5, signed=False, frac=-2)
    operation = added(a, Value("b", b.shape, Codes(b.codes.low, b.codes.high, -2)), (0, 2), signs)
    check(operation, (a, b), Fold(lanes, lanes), samples=500)


@pytest.mark.parametrize("lanes", [2, pytest.param(1, marks=pytest.mark.long), pytest.param(7, marks=pytest.mark.long)])
def test_constants_are_there_for_every_sample(lanes: int) -> None:
    a = value("a", (3, 7), 8)
    numbers = np.random.default_rng(0).integers(-50, 50, (3, 7))
    constant = Constant((), Value("b", (3, 7), Codes(-50, 49)), numbers)
    operation = added(a, constant.output, (0, 0), (1, 1))
    program = Program((a,), (constant, operation), ("y",))
    x = np.random.default_rng(1).integers(-128, 128, (50, 3, 7))
    made = design(connect(program, {"b": Fold(lanes, lanes), "y": Fold(lanes, lanes)}))
    for stall in (0, 40):
        found = simulate(made, [x], stall=stall)
        assert not found.warnings, found.warnings
        np.testing.assert_array_equal(found.outputs[0], x + numbers)
