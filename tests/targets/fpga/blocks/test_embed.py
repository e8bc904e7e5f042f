from __future__ import annotations

import numpy as np
import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.operations.base import Codes, Value
from planish.targets.fpga.operations.products import Embed
from tests.targets.fpga.blocks.harness import check, value


def embed(shape: tuple[int, ...], rows: int, row: int, lanes: int) -> None:
    table = np.random.default_rng(rows).integers(-8, 8, (rows, row))
    x = Value("x", shape, Codes(0, rows - 1))
    check(Embed(("x",), value("y", (*shape, row), 4), table), (x,), Fold(1, lanes), 300)


def test_rows_that_do_not_divide() -> None:
    embed((5,), 11, 7, 3)


@pytest.mark.long
@pytest.mark.parametrize(("shape", "rows", "row", "lanes"), [((5,), 11, 7, 1), ((5,), 16, 8, 8), ((), 3, 7, 2)])
def test_embed(shape: tuple[int, ...], rows: int, row: int, lanes: int) -> None:
    embed(shape, rows, row, lanes)
