from __future__ import annotations

import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.operations.products import MatMul
from tests.targets.fpga.blocks.harness import check, value


def matmul(transposed: bool, sizes: tuple[int, int, int], fold: Fold, bits: tuple[int, int], signed: bool) -> None:
    m, k, n = sizes
    a, b = value("a", (3, m, k), bits[0]), value("b", (3, n, k) if transposed else (3, k, n), bits[1], signed)
    made = value("y", (3, m, n), sum(bits) + k.bit_length())
    check(MatMul(("a", "b"), made, transposed), (a, b), fold, max(20, 10_000 // (3 * m * n) + 1))


@pytest.mark.parametrize("transposed", [False, True])
def test_sizes_that_do_not_divide(transposed: bool) -> None:
    matmul(transposed, (3, 5, 7), Fold(2, 3), (8, 6), True)


@pytest.mark.long
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("sizes", "fold"),
    [
        ((2, 3, 4), Fold(1, 1)),
        ((4, 8, 7), Fold(4, 3)),
        ((5, 7, 9), Fold(3, 4)),
        ((1, 1, 5), Fold(1, 5)),
        ((4, 6, 1), Fold(6, 1)),
        ((1, 1, 1), Fold(1, 1)),
        ((2, 9, 8), Fold(9, 8)),
        ((16, 16, 16), Fold(4, 4, dsp=False)),
    ],
)
def test_folds(transposed: bool, sizes: tuple[int, int, int], fold: Fold) -> None:
    matmul(transposed, sizes, fold, (8, 5), False)


@pytest.mark.long
def test_more_beats_to_load_than_to_multiply() -> None:
    matmul(True, (1, 12, 9), Fold(4, 9), (4, 4), True)
