from __future__ import annotations

import numpy as np
import pytest
import torch

from planish.formats import get
from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.operations.rows import Microscale
from planish.targets.fpga.program import Codes, Value
from tests.targets.fpga.blocks.harness import check, random_codes, value


def microscale(
    row: int, group: int, bits: int, lanes: int, *, element: Codes | None = None, rounding: str = "even",
    signed: bool = True,
) -> None:  # fmt: skip
    rng, samples = np.random.default_rng(row * bits), 200
    element = element or Codes(-128, 127)
    x = value("x", (3, row), bits, signed)
    fields = {"group": group, "low": element.low, "high": element.high, "rounding": rounding}
    low, high = Microscale(("x",), Value("y", x.shape, Codes(-(2**40), 2**40)), **fields).bounds(x)
    codes = random_codes(x, samples, rng) >> rng.integers(0, bits, (samples, 3, 1))  # small rows too
    check(Microscale(("x",), Value("y", x.shape, Codes(low, high)), **fields), (x,), Fold(lanes, lanes), codes=[codes])


def test_runs_and_a_shorter_one() -> None:
    microscale(10, 4, 14, 2)


def test_a_row_is_one_run() -> None:
    microscale(7, 32, 16, 3)


@pytest.mark.long
@pytest.mark.parametrize("rounding", ["even", "up", "floor"])
@pytest.mark.parametrize(("bits", "signed"), [(9, True), (9, False), (20, True), (16, False), (10, True)])
def test_numbers_of_any_width(rounding: str, bits: int, signed: bool) -> None:
    microscale(9, 3, bits, 3, rounding=rounding, signed=signed)


@pytest.mark.long
@pytest.mark.parametrize("element", [Codes(-8, 7), Codes(-1, 1), Codes(0, 255), Codes(-127, 127), Codes(0, 1)])
def test_elements(element: Codes) -> None:
    microscale(12, 4, 12, 4, element=element, signed=element.low < 0)


@pytest.mark.long
@pytest.mark.parametrize(("row", "group", "lanes"), [(130, 64, 1), (64, 16, 16), (5, 5, 5), (33, 32, 8), (1, 4, 1)])
def test_shapes(row: int, group: int, lanes: int) -> None:
    microscale(row, group, 12, lanes)


@pytest.mark.parametrize(
    ("form", "element"),
    [("mxint8", Codes(-128, 127)), ("bfp8", Codes(-128, 127)), ("int4@g8*e8m0~floor", Codes(-8, 7))],
)
def test_it_is_the_format(form: str, element: Codes) -> None:
    """Against the number format, whose oracles are others' (tests/formats)."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-(1 << 17), 1 << 17, (400, 96)) >> rng.integers(0, 17, (400, 96))
    group = get(form).block.sizes[0][1]  # type: ignore[union-attr]  # they have blocks
    scaled = Microscale(("x",), Value("y", (96,), Codes(-(2**20), 2**20)), group, element.low, element.high)
    wanted = get(form).dynamic().cast(torch.from_numpy(codes * 2.0**-9).float())
    np.testing.assert_array_equal(scaled.run(codes) * 2.0**-9, wanted.double().numpy())
