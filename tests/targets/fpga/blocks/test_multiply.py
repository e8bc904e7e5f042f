from __future__ import annotations

import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.operations.products import Multiply
from tests.targets.fpga.blocks.harness import check, value

WHOLE = (3, 5, 7)


def multiply(first: tuple[int, ...], second: tuple[int, ...], fold: Fold, samples: int = 100) -> None:
    a, b = value("a", first, 8), value("b", second, 6, signed=False)
    check(Multiply(("a", "b"), value("y", WHOLE, 14)), (a, b), fold, samples)


@pytest.mark.parametrize("second", [(3, 5, 1), (7,)])
def test_one_number_a_row_and_a_row_for_all(second: tuple[int, ...]) -> None:
    multiply(WHOLE, second, Fold(3, 3))


@pytest.mark.long
@pytest.mark.parametrize("second", [WHOLE, (3, 5, 1), (7,), (1,)])
@pytest.mark.parametrize("lanes", [1, 3, 7])
@pytest.mark.parametrize("dsp", [True, False])
def test_shapes(second: tuple[int, ...], lanes: int, dsp: bool) -> None:
    multiply(WHOLE, second, Fold(lanes, lanes, dsp))


@pytest.mark.long
@pytest.mark.parametrize(("first", "second"), [(19, 20), (24, 19), (18, 30), (37, 15)])
@pytest.mark.parametrize("signed", [True, False])
def test_products_wider_than_a_multiplier(first: int, second: int, signed: bool) -> None:
    a, b = value("a", WHOLE, first, signed), value("b", WHOLE, second)
    check(Multiply(("a", "b"), value("y", WHOLE, first + second)), (a, b), Fold(2, 2), 100)


@pytest.mark.long
def test_either_may_be_the_smaller() -> None:
    multiply((7,), WHOLE, Fold(2, 2))


@pytest.mark.long
def test_square() -> None:
    a = value("a", WHOLE, 9)
    check(Multiply(("a", "a"), value("y", WHOLE, 17, signed=False)), (a,), Fold(2, 2), 100)
