from __future__ import annotations

import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.operations.rows import Reduce
from tests.targets.fpga.blocks.harness import check, value


def reduce(kind: str, row: int, bits: int, signed: bool, lanes: int, samples: int) -> None:
    x = value("x", (3, row), bits, signed)
    grown = bits + (row - 1).bit_length() if kind == "sum" else bits
    check(Reduce(("x",), value("y", (3, 1), grown, signed), kind), (x,), Fold(lanes, 1), samples)


@pytest.mark.parametrize("kind", ["sum", "max"])
def test_rows_that_do_not_divide(kind: str) -> None:
    reduce(kind, 7, 8, True, 3, 500)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sum", "max"])
@pytest.mark.parametrize(("row", "bits", "signed", "lanes"), [(1, 8, True, 1), (5, 4, False, 1), (16, 4, False, 4)])
@pytest.mark.parametrize("extra", [0, 12])
def test_reduce(kind: str, row: int, bits: int, signed: bool, lanes: int, extra: int) -> None:
    reduce(kind, row, bits + extra, signed, lanes, 10_000 // (3 * row) + 1)


@pytest.mark.long
def test_one_beat_a_row() -> None:
    reduce("max", 11, 1, False, 11, 400)
    reduce("sum", 11, 1, False, 11, 400)
