"""Elements against ml_dtypes: every code, all bfloat16 patterns, every midpoint and its neighbors."""

# ruff: noqa: A001
from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from planish.formats import (
    BFLOAT16,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    E8M0,
    FLOAT16,
    NF4,
    Codebook,
    Element,
    Float,
    Int,
    Pow2,
    get,
)  # fmt: skip
from planish.formats.rounding import round_

ORACLES: list[tuple[Element, type]] = [
    (E2M1, ml_dtypes.float4_e2m1fn),
    (E2M3, ml_dtypes.float6_e2m3fn),
    (E3M2, ml_dtypes.float6_e3m2fn),
    (E4M3, ml_dtypes.float8_e4m3fn),
    (E5M2, ml_dtypes.float8_e5m2),
    (Float(4, 3), ml_dtypes.float8_e4m3),
    (Float(3, 4), ml_dtypes.float8_e3m4),
    (Float(4, 3, specials="fnuz"), ml_dtypes.float8_e4m3fnuz),
    (Float(5, 2, specials="fnuz"), ml_dtypes.float8_e5m2fnuz),
    (Float(4, 3, 11, "fnuz"), ml_dtypes.float8_e4m3b11fnuz),
    (BFLOAT16, ml_dtypes.bfloat16),
    (FLOAT16, np.float16),
]
IDS = [oracle.__name__ for _, oracle in ORACLES]


def adversarial(element: Element) -> torch.Tensor:
    """All bfloat16 patterns, and for small elements each number and midpoint, with their float32 neighbors."""
    patterns = torch.arange(1 << 16).to(torch.int32).bitwise_left_shift(16).view(torch.float32)
    if element.bits > 8:
        return torch.cat([patterns, torch.randn(100_000) * torch.exp2(torch.randint(-30, 30, (100_000,)).float())])
    grid = element.grid[element.grid.isfinite()].sort().values
    points = torch.cat([grid, (grid[1:] + grid[:-1]) / 2]).float()
    near = [torch.nextafter(points, torch.tensor(end)) for end in (torch.inf, -torch.inf)]
    return torch.cat([patterns, points, *near])


@pytest.mark.parametrize(("element", "oracle"), ORACLES, ids=IDS)
def test_every_code_has_the_oracle_s_value(element: Element, oracle: type) -> None:
    codes = torch.arange(2**element.bits)
    ours = element.from_codes(codes, torch.float32).numpy()
    theirs = codes.numpy().astype(np.uint8 if element.bits <= 8 else np.uint16).view(oracle).astype(np.float32)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours)[~np.isnan(ours)], np.signbit(theirs)[~np.isnan(ours)])


@pytest.mark.parametrize(("element", "oracle"), ORACLES, ids=IDS)
def test_rounding_equals_the_oracle(element: Element, oracle: type) -> None:
    x = adversarial(element)
    if not element.has_nan:  # what becomes of NaN is ours to say: zero
        assert (element.round_(torch.tensor([torch.nan])) == 0).all()
        x = x[~x.isnan()]
    overflow = "infinity" if "infinity" in element.overflows else "saturate"
    ours = element.round_(x.clone(), overflow=overflow).numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = x.numpy().astype(oracle).astype(np.float32)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours)[~np.isnan(ours)], np.signbit(theirs)[~np.isnan(ours)])
    wide = element.round_(x.double(), overflow=overflow).numpy()
    np.testing.assert_array_equal(wide, theirs)


@pytest.mark.parametrize(("element", "oracle"), ORACLES, ids=IDS)
def test_saturation_keeps_the_range(element: Element, oracle: type) -> None:
    x = torch.tensor([torch.inf, -torch.inf, 3e38, -3e38, 2.0**127])
    limit = min(element.maximum, 2.0**127)
    y = element.round_(x, overflow="saturate")
    assert y.abs().min() >= limit * 0.99
    assert y.abs().max() == element.maximum
    assert element.maximum == float(ml_dtypes.finfo(oracle).max)
    assert element.smallest == float(ml_dtypes.finfo(oracle).smallest_subnormal)


def test_e8m0_equals_the_oracle() -> None:
    codes = torch.arange(256)
    theirs = codes.numpy().astype(np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(E8M0.from_codes(codes, torch.float32).numpy(), theirs)
    assert torch.equal(E8M0.to_codes(E8M0.from_codes(codes, torch.float64)), codes.to(torch.uint8))
    x = torch.tensor([1.0, 1.49, 1.51, 2.9, 3.1, 3.0, 1.5, 2.0**-130, 3e38, 0.0, -5.0])
    assert E8M0.round_(x.clone()).tolist() == [1, 1, 2, 2, 4, 2, 2, 2.0**-127, 2.0**127, 2.0**-127, 2.0**-127]
    assert E8M0.round_(x[:5].clone(), "down").tolist() == [1, 1, 1, 2, 2]
    assert E8M0.round_(x[:5].clone(), "up").tolist() == [1, 2, 2, 4, 4]
    assert E8M0.round_(torch.tensor([torch.nan])).isnan().all()


def test_logarithmic_numbers() -> None:
    element = Pow2(3, signed=True, zero=True, nan=False)
    assert element.grid.tolist()[:8] == [0, 0.25, 0.5, 1, 2, 4, 8, 16]
    x = torch.tensor([0.1, 0.13, -0.7, -0.8, 100.0, -3.1, 0.0])
    assert element.round_(x).tolist() == [0.0, 0.25, -0.5, -1.0, 16.0, -4.0, 0.0]


def test_integers() -> None:
    assert Int(8).grid.tolist() == list(range(-128, 128))
    assert Int(4, narrow=True).grid.tolist() == list(range(-7, 8))
    assert Int(4, 2, signed=False).grid.tolist() == [n / 4 for n in range(16)]
    x = torch.tensor([0.5, 1.5, -0.5, -2.5, 1e9, -torch.inf, torch.nan])
    assert Int(8).round_(x.clone()).tolist() == [0, 2, 0, -2, 127, -128, 0]
    assert not Int(8).round_(torch.tensor([-0.2])).signbit().any()


def test_the_nearest_of_a_codebook() -> None:
    book = Codebook((-1.0, 0.0, 0.25, 1.0))
    assert book.round_(torch.tensor([-9.0, -0.51, -0.49, 0.125, 0.126, torch.nan])).tolist() == [
        -1.0, -1.0, 0.0, 0.0, 0.25, 0.0,
    ]  # fmt: skip
    assert NF4.bits == 4


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("even", [0, 2, 2, 0, -2, -2, 0]),
        ("away", [1, 2, 3, -1, -2, -3, 0]),
        ("down", [0, 1, 2, -1, -2, -3, 0]),
        ("up", [1, 2, 3, 0, -1, -2, 1]),
    ],
)
def test_rounding_modes(rounding: str, expected: list[int]) -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997])
    assert round_(x, rounding).tolist() == expected
    special = torch.tensor([torch.inf, -torch.inf, 2.0**30])
    assert torch.equal(round_(special.clone(), rounding), special)
    assert round_(torch.tensor([torch.nan]), rounding).isnan().all()


def test_stochastic_rounding_is_unbiased_and_seeded() -> None:
    format = get("q3.4~stochastic")
    x = torch.full((200_000,), 0.33)
    y = format.cast(x, seed=7)
    assert set(y.unique().tolist()) == {0.3125, 0.375}
    assert abs(float(y.mean()) - 0.33) < 5e-4
    assert torch.equal(y, format.cast(x, seed=7))
    assert not torch.equal(y, format.cast(x, seed=8))
    assert torch.equal(y, format.decode(format.encode(x, seed=7)))
