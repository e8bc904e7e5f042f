from __future__ import annotations

import numpy as np
import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.operations.rows import Normalize
from tests.targets.fpga.blocks.harness import check, random_codes, value


def normalize(root: bool, index: int, bits: int, shift: int, rounding: str, lanes: int, x_bits: int = 12) -> None:
    rng = np.random.default_rng(index)
    x, v = value("x", (4, 7), x_bits), value("v", (4, 1), bits, signed=False)
    table = rng.integers(0, 1 << 9, 1 << (index + root))
    samples = 360
    numbers = random_codes(v, samples, rng) >> rng.integers(0, bits, (samples, *v.shape))  # small ones too
    operation = Normalize(("x", "v"), value("y", x.shape, 8), root, index, table, shift, rounding)
    check(operation, (x, v), Fold(lanes, lanes), codes=[random_codes(x, samples, rng), numbers])


def test_quotient() -> None:
    normalize(False, 5, 12, 4, "even", 2)


def test_root() -> None:
    normalize(True, 4, 20, 5, "up", 3)


@pytest.mark.long
@pytest.mark.parametrize("rounding", ["even", "up", "floor"])
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("shift", [-3, 0, 7])
def test_shifts(rounding: str, root: bool, shift: int) -> None:
    normalize(root, 5, 14, shift, rounding, 7, x_bits=6)


@pytest.mark.long
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize(("index", "bits", "lanes"), [(0, 7, 1), (8, 5, 2), (6, 1, 7), (1, 2, 4), (10, 33, 3)])
def test_numbers_of_any_width(root: bool, index: int, bits: int, lanes: int) -> None:
    normalize(root, index, bits, 3, "even", lanes)
