"""Blocks, scales and scale rules: against torchao, torch, and the standard's clauses in fractions."""

# ruff: noqa: A001
from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from planish.formats import get
from tests.formats import adversarial
from tests.formats.contract import numbers
from tests.support import require


def normal_blocks() -> Tensor:
    """Rows that break shortcuts, all normal numbers: the ends of float32, zeros, one outlier, ties, plain ones."""
    ties = torch.arange(128.0) / 4 - 16
    outlier = torch.full((128,), 1e-3)
    outlier[5], outlier[77] = 3e4, -3e38
    sparse = torch.zeros(128)
    sparse[40] = -1.0
    rows = [
        torch.full((128,), 3e38),
        torch.full((128,), -3e38),
        torch.zeros(128),
        outlier,
        sparse,
        ties,
        ties * 2.0**-100,
    ]
    powers = torch.exp2(torch.arange(128.0) / 2 - 60)
    rows += [powers, powers * 1.999, -powers * 1.75, powers.flip(0) * 1.5, torch.full((128,), 448.0)]
    return torch.cat([torch.stack(rows), numbers(200, 128, seed=5)])


MX = {
    "mxfp8": torch.float8_e4m3fn, "mxfp8_e5m2": torch.float8_e5m2, "mxfp4": torch.float4_e2m1fn_x2,
    "mxfp6": "fp6_e2m3", "mxfp6_e3m2": "fp6_e3m2",
}  # fmt: skip


@pytest.mark.parametrize(("rule", "mode"), [("floor", "FLOOR"), ("ceil", "RCEIL")])
@pytest.mark.parametrize("name", MX)
def test_equals_torchao_mx(name: str, rule: str, mode: str) -> None:
    mx = require("torchao.prototype.mx_formats.mx_tensor")
    modes = require("torchao.prototype.mx_formats.config").ScaleCalculationMode
    x, format = normal_blocks(), get(f"{name}~{rule}")
    theirs = mx.MXTensor.to_mx(x, MX[name], 32, scaling_mode=modes[mode])
    ours = format.encode(x)
    scales = format.scale.element.to_codes(ours.parameters[0]).view(torch.uint8)
    used = x.reshape(len(x), -1, 32).abs().amax(-1) > 0  # a block of zeros has any scale
    assert torch.equal(scales[used], theirs.scale.view(torch.uint8).reshape(scales.shape)[used])
    assert torch.equal(ours.decode(), theirs.dequantize(torch.float32))


@pytest.mark.parametrize("rule", ["floor", "ceil"])
@pytest.mark.parametrize("name", [*MX, "mxint8", "bfp4", "msfp12", "e2m5finite@g32*e8m0"])
def test_equals_the_clauses_of_mx(name: str, rule: str) -> None:
    """OCP MX 1.0, section 6.3, in fractions: the shared scale, then each element to the nearest, ties to even; on
    blocks of every size, subnormal ones and subnormal scales among them, and ragged."""
    format = get(f"{name}~{rule}")
    size, element = format.block.sizes[0][1], format.element
    grid, order = element.grid[element.grid.isfinite()].sort()
    codes = torch.arange(len(element.grid))[element.grid.isfinite()][order].tolist()
    if element.minimum != -grid[-1] or name in ("mxint8", "bfp4", "msfp12"):
        codes = (grid / element.smallest).long().tolist()
    kept = [i for i, v in enumerate(grid.tolist()) if i == 0 or v != grid[i - 1]]
    grid, codes = [grid.tolist()[i] for i in kept], [codes[i] for i in kept]
    generator = torch.Generator().manual_seed(0)
    sizes = torch.exp2(torch.arange(48.0) * 5.6 - 148)
    x = torch.randn(48, size + 5, generator=generator) * sizes.unsqueeze(1)
    x[::3] = (x[::3] / sizes[::3, None] * 4).round() / 4 * sizes[::3, None]  # ties
    encoded = format.encode(x)
    y = encoded.decode()
    for row in range(len(x)):
        for place, start in enumerate(range(0, x.shape[1], size)):
            block = x[row, start : start + size].tolist()
            largest = max(abs(Fraction(v)) for v in block)
            scale = encoded.parameters[0][row, place].item()
            if largest == 0:
                continue
            assert Fraction(scale) == shared_scale(largest, element.emax, Fraction(element.maximum), rule), (row, place)
            for v, ours in zip(block, y[row, start : start + size].tolist(), strict=True):
                nearest = adversarial.nearest_fraction(Fraction(v) / Fraction(scale), grid, codes)
                assert ours == torch.tensor(float(Fraction(nearest) * Fraction(scale)), dtype=torch.float64).float()


def shared_scale(largest: Fraction, emax: int, maximum: Fraction, rule: str) -> Fraction:
    """The power of two that the rule asks for, in the range of E8M0."""
    power = -400
    while Fraction(2) ** (power + 1) <= largest:
        power += 1
    power -= emax
    if rule == "ceil":
        power += largest > Fraction(2) ** power * maximum
    return Fraction(2) ** max(-127, min(127, power))


@pytest.mark.parametrize("power", [-20, 0, 30])
def test_equals_torchao_nvfp4(power: int) -> None:
    """Away from what torchao does by itself: block scales of 2**-6 or more, and a reciprocal that is off by an ulp."""
    ao = require("torchao.prototype.mx_formats.nvfp4_tensor")
    x = numbers(200, 128, seed=3).clamp(-40, 40)
    x[0, 0] = 42.0
    x = x * 64 * 2.0**power  # the largest is 2688 times a power of two, so that the scale of the tensor is exact
    format = get("nvfp4")
    outer = ao.per_tensor_amax_to_scale(x.abs().amax())
    scales, packed = ao.nvfp4_quantize(x, 16, outer)
    ours = format.encode(x)
    level, top = ours.parameters
    assert float(top) == float(outer) == 2.0**power
    theirs, normal = scales.float().reshape(level.shape), level >= 2.0**-6
    assert normal.float().mean() > 0.95
    assert torch.equal(level[normal], theirs[normal])
    nibbles = torch.stack([packed & 15, packed >> 4], -1).reshape(x.shape)
    clear = normal.repeat_interleave(16, 1) & _away_from_ties(x.double() / level.repeat_interleave(16, 1) / 2.0**power)
    assert clear.float().mean() > 0.9
    assert torch.equal(ours.codes[clear], nibbles[clear])


def _away_from_ties(scaled: Tensor) -> Tensor:
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], dtype=torch.float64)
    return ((scaled.abs().unsqueeze(-1) / ties - 1).abs() > 1e-6).all(-1)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_equals_fake_quantize_on_hostile_rows(bits: int, signed: bool) -> None:
    """torch multiplies by the reciprocal; scales that are powers of two make the two the same."""
    x = torch.cat([normal_blocks(), numbers(20, 128)])
    format = get(f"{'' if signed else 'u'}int{bits}@channel0*(e8m0~up)")
    given = format.parameters(x)
    zero = given[1].to(torch.int32) if format.is_affine else torch.zeros_like(given[0], dtype=torch.int32)
    limits = int(format.element.minimum), int(format.element.maximum)
    theirs = torch.fake_quantize_per_channel_affine(x, given[0].flatten(), zero.flatten(), 0, *limits)
    assert torch.equal(format.cast(x, given), theirs)


def test_a_scale_rounded_up_never_saturates() -> None:
    x = torch.cat([normal_blocks(), numbers(300, 128, seed=9)])
    for name in (*MX, "mxint8", "int4@g32*e8m0", "e4m3@g32*(e5m2~up)", "uint4-zp@g16*float16"):
        format = get(f"{name}~ceil")
        limit = 6e4 if "float16" in name or "e5m2~" in name else 3.4e38  # the scale itself must not saturate
        fitting = (x.abs() if format.element.minimum == 0 else x).clamp(-limit, limit)
        given = format.parameters(fitting)
        assert format.inside(fitting, given).all(), name
        if name in MX:  # and half the scale would, in every block that is not zero or at the end of E8M0
            halved = ~format.inside(fitting, (given[0] / 2,)).reshape(len(x), -1, 32).all(-1)
            needed = (fitting.reshape(len(x), -1, 32).abs().amax(-1) > 0) & (given[0] >= 2.0**-126)
            assert halved[needed].all(), name


@pytest.mark.parametrize("name", ["mxfp4", "mxfp6", "mxint8", "int4@g32*e8m0", "e2m1@tile4x8*e8m0"])
def test_the_searched_power_of_two_is_the_best_of_all(name: str) -> None:
    x = numbers(32, 64, seed=4)
    format = get(f"{name}~mse")
    block = format.block

    def error(scale: Tensor) -> Tensor:
        return block.sum((format.cast(x, (scale,)).double() - x.double()).square())

    found = format.parameters(x)[0]
    every = torch.stack([error(torch.full_like(found, 2.0**power)) for power in range(-40, 20)])
    assert torch.allclose(error(found), every.amin(0), rtol=1e-6)


@pytest.mark.parametrize(
    "text", ["int4@g32", "uint4@g32", "nvfp4", "int4@g32*float16", "nf4@g64", "uint4@g32*float16-(float16)"]
)
def test_a_searched_scale_is_never_worse(text: str) -> None:
    x = numbers(32, 256, seed=4)
    block = get(text).block
    plain, searched = ((get(text + rule).cast(x) - x).double().square() for rule in ("", "~mse"))
    assert (block.sum(searched) <= block.sum(plain) * (1 + 1e-6)).all()
    assert searched.sum() < plain.sum()


def test_ragged_blocks_are_those_of_a_tensor_padded_with_zeros() -> None:
    x = numbers(5, 75, seed=8)
    for name in ("mxfp4", "nvfp4", "q4_k", "int4@g32", "q4_0"):
        format = get(name)
        padded = torch.nn.functional.pad(x, (0, 96 - 75))
        assert torch.equal(format.cast(x), format.cast(padded)[:, :75]), name
    square = torch.nn.functional.pad(numbers(50, 50), (0, 46, 0, 46))
    assert torch.equal(get("bm8").cast(square[:50, :50]), get("bm8").cast(square)[:50, :50])
