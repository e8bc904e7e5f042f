"""Two million hostile float32 for each element of 8 bits or fewer; `benchmarks/format_sweep.py` has all 2^32."""

# ruff: noqa: A001
from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from planish.formats import AF4, E8M0, NF4, Codebook, Element, Float, Format, Int, Posit, Pow2, get
from planish.formats.spelling import write_element
from tests.formats import adversarial
from tests.support import require

ML_DTYPES = {
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3ieee": ml_dtypes.float8_e4m3,
    "e3m4": ml_dtypes.float8_e3m4,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
}


def agree(ours: Tensor, theirs: np.ndarray) -> bool:
    """The same bits; NaN is NaN, whatever its payload."""
    with np.errstate(invalid="ignore"):  # numpy warns of a signaling NaN
        mine, its = ours.numpy().view(np.uint32), theirs.astype(np.float32).view(np.uint32)
    return bool(((mine == its) | np.isnan(ours.numpy()) & np.isnan(theirs)).all())


@pytest.mark.parametrize("overflow", ["saturate", "infinity"])
@pytest.mark.parametrize("name", ML_DTYPES)
def test_equals_ml_dtypes(name: str, overflow: str) -> None:
    element, oracle = get(name).element, ML_DTYPES[name]
    if overflow not in element.overflows:
        return
    format, x = Format(element, scale=None, overflow=overflow), adversarial.patterns(element)
    if not element.has_nan:
        x = x.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    given = x if overflow == "infinity" else x.clamp(element.minimum, element.maximum)
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = given.numpy().astype(oracle)
    values, codes = format.cast(x), format.encode(x).codes
    assert agree(values, theirs.astype(np.float32))
    there = ~values.isnan().numpy()
    np.testing.assert_array_equal(codes.numpy()[there], theirs.view(np.uint8)[there])
    assert agree(format.decode(format.encode(x)), theirs.astype(np.float32))


MINIFLOATS = [
    Float(e, m, specials=specials)
    for e, m in [(2, 2), (3, 1), (2, 4), (3, 3), (4, 2), (2, 5), (3, 4), (5, 1), (6, 1)]
    for specials in ("finite", "ieee")
]


@pytest.mark.parametrize("element", MINIFLOATS, ids=lambda e: f"e{e.exponent}m{e.mantissa}{e.specials}")
def test_minifloats_equal_gfloat(element: Float) -> None:
    """gfloat takes any split of the bits; it is slow, so that fewer inputs must do."""
    gfloat = require("gfloat")
    types = require("gfloat.types")
    domain = types.Domain.Extended if element.specials == "ieee" else types.Domain.Finite
    nans = 2**element.mantissa - 1 if element.specials == "ieee" else 0
    info = gfloat.FormatInfo(
        "mine", element.bits, element.mantissa + 1, bias=element.bias, is_signed=True, domain=domain, has_nz=True,
        num_high_nans=nans, has_subnormals=True, is_twos_complement=False,
    )  # fmt: skip
    x = adversarial.patterns(element, 120_000)
    x = x if element.has_nan else x[~x.isnan()]
    for overflow in element.overflows:
        with np.errstate(invalid="ignore"):
            theirs = gfloat.round_ndarray(info, x.double().numpy(), sat=overflow == "saturate")
        ours = Format(element, scale=None, overflow=overflow).cast(x)
        if overflow == "saturate":  # an infinity saturates here, and stays there
            theirs = np.clip(theirs, element.minimum, element.maximum)
        assert agree(ours, theirs)
    codes = range(2**element.bits)
    decoded = np.array([gfloat.decode_float(info, code).fval for code in codes])
    assert agree(element.grid.float(), decoded)


@pytest.mark.parametrize(
    "element", [Int(b, f, s) for b in range(2, 9) for f in (0, 3) for s in (True, False)], ids=write_element
)
def test_integers_equal_numpy(element: Int) -> None:
    x = adversarial.patterns(element)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(x.numpy() * np.float32(2.0**element.frac))
    codes = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=np.inf, neginf=-np.inf), element.lowest, element.highest)
    format = Format(element, scale=None)
    np.testing.assert_array_equal(format.encode(x).codes.numpy().astype(np.float32), codes)
    assert agree(format.cast(x), codes / np.float32(2.0**element.frac) + np.float32(0))


TABLES: list[Element] = [
    NF4, AF4, Codebook((-1.0, 1.0)), Codebook((-3.0, -0.5, 0.25, 2.0, 2.5)), Pow2(3, signed=True, zero=True, nan=False),
    Pow2(4, signed=True, zero=True, nan=False), Pow2(5, zero=True), E8M0,
]  # fmt: skip


@pytest.mark.parametrize("element", TABLES, ids=lambda element: write_element(element)[:20])
def test_the_nearest_by_exact_arithmetic(element: Element) -> None:
    """Against fractions where it is close, and against float64 distances everywhere else."""
    grid = element.grid[element.grid.isfinite()].sort().values
    lower = isinstance(element, Codebook)
    points = torch.cat([grid, (grid[1:] + grid[:-1]) / 2]).float()
    points = torch.cat([points, *(torch.nextafter(points, torch.tensor(end)) for end in (torch.inf, -torch.inf))])
    codes = list(range(len(grid))) if lower else element.to_codes(grid).tolist()
    ours = Format(element, scale=None).cast(points).tolist()
    for x, y in zip(points.tolist(), ours, strict=True):
        assert y == (_lower(x, grid.tolist()) if lower else adversarial.nearest(x, grid.tolist(), codes)), x
    x = adversarial.patterns(element)
    x = x[x.isfinite()].double()
    place = torch.searchsorted(grid, x).clamp(1, len(grid) - 1)
    closest = torch.minimum((x - grid[place - 1]).abs(), (grid[place] - x).abs())
    assert torch.equal((Format(element, scale=None).cast(x.float()).double() - x).abs(), closest)


def _lower(x: float, grid: list[float]) -> float:
    return adversarial.nearest(x, grid, [0] * len(grid))  # the first of equals


@pytest.mark.parametrize("element", [Posit(bits, es) for bits in (3, 4, 6, 8) for es in (0, 1, 2)], ids=write_element)
def test_posits_equal_the_standard(element: Posit) -> None:
    bits, es = element.bits, element.es
    values = [adversarial.posit_value(code, bits, es) for code in range(1 << bits)]
    assert [v if v is None else float(v) for v in values] == [None if v != v else v for v in element.grid.tolist()]
    x = adversarial.patterns(element, 66_000)[:: 1 if bits == 8 else 4]
    edges = torch.tensor(element.cuts("even"), dtype=torch.float64).float()
    near = [torch.nextafter(edges, torch.tensor(end)) for end in (torch.inf, -torch.inf)]
    x = torch.cat([x[::16], x[-2000:], edges, *near])
    theirs = [adversarial.posit_code(number, bits, es) for number in x.tolist()]
    assert Format(element, scale=None).encode(x).codes.tolist() == theirs


DIRECTED = [
    "int4",
    "q2.3",
    "uint4-zp*none",
    "e4m3",
    "e2m1",
    "e5m2fnuz",
    "se3m0z",
    "e5m0zx",
    "nf4*none",
    "{-1.0,0.5,2.0}*none",
]


@pytest.mark.parametrize("text", DIRECTED)
def test_rounding_down_up_and_by_chance(text: str) -> None:
    element = get(text).element
    grid = element.grid[element.grid.isfinite()].unique()
    share = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (
        torch.cat([grid[0] + (grid[-1] - grid[0]) * share[:10_000] ** 3, grid[-1] * share[10_000:] ** 8])
        .float()
        .double()
    )
    x = x[(x >= grid[0]) & (x <= grid[-1])]
    place = torch.searchsorted(grid, x)
    up, down = grid[place], grid[torch.searchsorted(grid, x, right=True) - 1]
    assert torch.equal(element.round_(x.clone(), "up"), up)
    assert torch.equal(element.round_(x.clone(), "down"), down)
    assert torch.equal(element.round_(x.float(), "up").double(), up)
    total = torch.zeros_like(x)
    for seed in range(50):
        y = element.round_(x.clone(), "stochastic", generator=torch.Generator().manual_seed(seed))
        assert ((y == up) | (y == down)).all()
        total += (y - x) / (up - down).where(up > down, 1.0)
    assert abs(float(total.mean()) / 50) < 4e-3
