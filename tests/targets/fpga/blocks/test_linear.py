"""The matrix-vector unit: every way to multiply, folds that divide nothing, against the integer program."""

from __future__ import annotations

import numpy as np
import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.blocks.linear import LinearBlock
from planish.targets.fpga.blocks.matvec import DSP, LUTS, SHARED, SIGNS
from planish.targets.fpga.program import Codes, Integers, Linear, Value
from tests.targets.fpga.blocks.harness import check, value


def linear(x: Value, weight: Integers, bias: Integers | None) -> Linear:
    """With an output just wide enough."""
    wide = Value("y", (*x.shape[:-1], len(weight)), Codes(-(1 << 50), 1 << 50))
    low, high = Linear((x.name,), wide, weight, bias).bounds(x)
    return Linear((x.name,), Value("y", wide.shape, Codes(low, high)), weight, bias)


def random_linear(x: Value, rows: int, low: int, high: int, bias: bool = True, seed: int = 0) -> Linear:
    rng = np.random.default_rng(seed)
    weight = rng.integers(low, high + 1, (rows, x.shape[-1]))
    return linear(x, weight, rng.integers(-99, 100, rows) if bias else None)


CASES = [
    (value("x", (64,), 6, False), 32, -31, 31, Fold(13, 2), SHARED),
    (value("x", (7,), 6), 5, -32, 31, Fold(3, 2), SHARED),
    (value("x", (3, 7), 4), 5, -8, 7, Fold(3, 3), SHARED),
    (value("x", (7,), 8, False), 5, -128, 127, Fold(1, 1), DSP),
    (value("x", (7,), 16), 3, -30000, 30000, Fold(2, 3), DSP),
    (value("x", (7,), 20), 3, -30, 30, Fold(2, 3), DSP),
    (value("x", (7,), 4), 5, -8, 7, Fold(7, 5, dsp=False), LUTS),
    (value("x", (7,), 9, False), 4, -128, 127, Fold(2, 2, dsp=False), LUTS),
    (value("x", (9,), 3), 4, -2, 1, Fold(2, 4), LUTS),
    (value("x", (9,), 8, False), 4, -1, 1, Fold(3, 2), SIGNS),
    (value("x", (1,), 4), 1, -8, 7, Fold(1, 1), DSP),
    (value("x", (40,), 4), 3, -8, 7, Fold(2, 1), DSP),
]


def test_a_folded_layer_whose_sizes_do_not_divide() -> None:
    x = value("x", (3, 7), 6)
    check(random_linear(x, 5, -32, 31), (x,), Fold(3, 2), samples=700)


@pytest.mark.long
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("x", "rows", "low", "high", "fold", "style"), CASES)
def test_products(x: Value, rows: int, low: int, high: int, fold: Fold, style: int, bias: bool) -> None:
    operation = random_linear(x, rows, low, high, bias)
    assert LinearBlock().instance(operation, (x,), fold).parameters["STYLE"] == style
    check(operation, (x,), fold)


@pytest.mark.long
@pytest.mark.parametrize("fold", [Fold(3, 2), Fold(4, 4)])
def test_binary_weights(fold: Fold) -> None:
    x = value("x", (9,), 3)
    check(linear(x, np.random.default_rng(0).choice([-1, 1], (4, 9)), None), (x,), fold)


@pytest.mark.long
def test_lowest_weights_meet_the_largest_input() -> None:
    x = value("x", (5,), 6, False)
    operation = linear(x, np.full((4, 5), -31), None)
    check(operation, (x,), Fold(5, 4), codes=[np.full((9, 5), 63)])


@pytest.mark.long
@pytest.mark.parametrize("place", range(6))
def test_ten_thousand_numbers_in_every_kind_of_fold(place: int) -> None:
    x = value("x", (23,), 6, False)
    operation = random_linear(x, 13, -31, 31)
    offered = LinearBlock().folds(operation, (x,))
    check(operation, (x,), offered[place * (len(offered) - 1) // 5], samples=800)


def test_folds_grow_from_one_multiplication_to_all() -> None:
    x = value("x", (64,), 6, False)
    operation = random_linear(x, 32, -31, 31)
    block = LinearBlock()
    offered = block.folds(operation, (x,))
    assert (offered[0].simd, offered[0].pe) == (1, 1)
    assert (offered[-1].simd, offered[-1].pe) == (64, 32)
    intervals = [block.instance(operation, (x,), fold).interval for fold in offered]
    assert intervals == sorted(intervals, reverse=True)
    assert len(set(intervals)) == len(intervals)
