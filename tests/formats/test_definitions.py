"""Named formats against their papers' formulas, spelled out."""

# ruff: noqa: A001
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from planish.formats import AF4, NF4, get

X = torch.randn(40, 96, generator=torch.Generator().manual_seed(0))


def test_binary_is_the_sign_times_the_mean_magnitude() -> None:
    sign = torch.where(X >= 0, 1.0, -1.0)
    expected = sign * X.double().abs().mean(1, keepdim=True).float()
    assert torch.equal(get("binary@channel0").cast(X), expected)
    assert (get("binary").cast(torch.tensor([0.0, -0.0, 2.0])) > 0).all(), "zero is positive, as in BinaryConnect"


def test_residual_binary_is_greedy() -> None:
    left, expected = X, torch.zeros_like(X)
    for _ in range(3):
        level = torch.where(left >= 0, 1.0, -1.0) * left.double().abs().mean(1, keepdim=True).float()
        left, expected = left - level, expected + level
    encoded = get("binary3@channel0").encode(X)
    torch.testing.assert_close(encoded.decode(), expected, rtol=0, atol=1e-6)
    assert torch.equal(encoded.codes & 1 == 1, X >= 0)
    assert [p.shape for p in encoded.parameters] == [(40, 1)] * 3


def test_ternary_has_the_scale_of_its_paper() -> None:
    magnitude = X.double().abs()
    large = magnitude > 0.7 * magnitude.mean(1, keepdim=True)
    scale = ((magnitude * large).sum(1, keepdim=True) / large.sum(1, keepdim=True)).float()
    format = get("ternary@channel0")
    assert torch.equal(format.parameters(X)[0], scale)
    theirs = X.sign() * large * scale  # the threshold of the paper; ours is half the scale, the nearest
    ours = format.cast(X)
    assert ((ours - X).square().sum(1) <= (theirs - X).square().sum(1) + 1e-4).all()


def test_bitnet_rounds_by_the_mean() -> None:
    scale = X.double().abs().mean().float()
    assert torch.equal(get("bitnet").cast(X), (X / scale).round().clamp(-1, 1) * scale)


def test_nf4_is_made_of_normal_quantiles() -> None:
    """QLoRA, section 3: equal shares of a normal distribution on each side of zero."""
    ends = (
        torch.linspace(0.9677083, 0.5, 9, dtype=torch.float64),
        torch.linspace(0.9677083, 0.5, 8, dtype=torch.float64),
    )
    values = torch.cat([torch.special.ndtri(ends[0][:-1]), torch.zeros(1), -torch.special.ndtri(ends[1][:-1])])
    values = values.sort().values / values.max()
    torch.testing.assert_close(torch.tensor(NF4.values, dtype=torch.float64), values, rtol=0, atol=2e-7)


def test_af4_is_made_of_medians() -> None:
    """arXiv 2306.06965: each number is the median of its cell for normal numbers over the largest of 64; the cells of
    the two next to zero end at zero."""
    largest = torch.linspace(0.3, 7, 3001, dtype=torch.float64)
    share = ((2 * torch.special.ndtr(largest) - 1) ** 64).diff()
    largest = (largest[1:] + largest[:-1]) / 2

    def below(x: Tensor) -> Tensor:
        part = (torch.special.ndtr(x[:, None] * largest) - torch.special.ndtr(-largest)) / (
            2 * torch.special.ndtr(largest) - 1
        )
        return (part * share).sum(1) / share.sum()

    values = torch.tensor(AF4.values, dtype=torch.float64)
    cuts = (values[1:] + values[:-1]) / 2
    for place in [*range(1, 7), *range(8, 15)]:
        ends = torch.stack([cuts[place - 1] if place != 8 else values[7], cuts[place] if place != 6 else values[7]])
        middle, low, high = below(ends).mean(), *ends.unsqueeze(1)
        for _ in range(40):
            half = (low + high) / 2
            low, high = (half, high) if below(half) < middle else (low, half)
        assert float(low) == pytest.approx(float(values[place]), abs=2e-6), place


@pytest.mark.parametrize(("name", "bits"), [("q4_0", 4), ("q5_0", 5)])
def test_ggml_groups_with_a_signed_scale(name: str, bits: int) -> None:
    """The number of largest magnitude gets the lowest code: d = max / -2**(bits - 1), as float16."""
    encoded = get(name).encode(X)
    blocks = X.reshape(40, 3, 32)
    peak = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))
    d = (peak / -(2 ** (bits - 1))).half().float()
    assert torch.equal(encoded.parameters[0], d.squeeze(2))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert torch.equal(encoded.codes.reshape(40, 3, 32).float(), (blocks / d).round().clamp(low, high))


@pytest.mark.parametrize(
    ("name", "size", "bits", "bits2"), [("q4_k", 32, 4, 6), ("q5_k", 32, 5, 6), ("q2_k", 16, 2, 4)]
)
def test_ggml_superblocks(name: str, size: int, bits: int, bits2: int) -> None:
    """y = d * sc * q - dmin * m, with float16 d and dmin for 256 numbers, and small integers sc and m for a group."""
    x = torch.randn(6, 512, generator=torch.Generator().manual_seed(1)) + 0.5
    encoded = get(name).encode(x)
    sc, d, m, dmin = (p.float() for p in encoded.parameters)
    assert [p.shape for p in (sc, d, m, dmin)] == [(6, 512 // size), (6, 2), (6, 512 // size), (6, 2)]
    for level, outer in ((sc, d), (m, dmin)):
        assert torch.equal(level, level.round())
        assert level.amax() == 2**bits2 - 1
        assert torch.equal(outer, outer.half().float())
    per = 256 // size
    scale, low = sc * d.repeat_interleave(per, 1), m * dmin.repeat_interleave(per, 1)
    q = encoded.codes.float()
    assert q.amin() == 0
    assert q.amax() == 2**bits - 1
    assert torch.equal(encoded.decode(), q * scale.repeat_interleave(size, 1) - low.repeat_interleave(size, 1))
    groups, steps = x.reshape(6, -1, size), 2**bits - 1
    wanted = (groups.amax(2) - groups.amin(2).clamp(max=0)) / steps
    bound = (d / 2 + dmin / 2 / steps).repeat_interleave(per, 1) * 1.001
    assert ((wanted - scale).abs() <= bound).all()


def test_ggml_q6_k_has_signed_scales_of_scales() -> None:
    x = torch.randn(6, 512, generator=torch.Generator().manual_seed(1))
    sc, _ = get("q6_k").encode(x).parameters
    assert sc.amin() == -128
    assert bool((sc < 0).any() & (sc > 0).any())
    error = (get("q6_k").cast(x) - x).square().mean() / x.square().mean()
    assert error < 1e-3


def test_log_rounds_by_logarithm() -> None:
    x = X.abs() + 0.3
    y = get("se5m0z~log").cast(x)
    assert torch.equal(y.log2(), x.log2().round())


def test_three_bfloat16_hold_a_float32() -> None:
    x = X * torch.exp2(torch.randint(-30, 30, X.shape, generator=torch.Generator().manual_seed(2)).float())
    assert torch.equal(get("bfloat16x3").cast(x), x)
    first = x.bfloat16().float()
    assert torch.equal(get("bfloat16x2").cast(x), first + (x - first).bfloat16().float())


def test_double_quantized_scales() -> None:
    """QLoRA, section 3: 8-bit floats for the scales of 64 numbers, one float32 for 256 of those."""
    x = torch.randn(2, 64 * 300)
    level, top = get("nf4_double").parameters(x)
    assert (level.shape, top.shape) == ((2, 300), (2, 2))
    largest = x.reshape(2, 300, 64).abs().amax(2)
    outer = torch.stack([part.amax(1) for part in (largest[:, :256], largest[:, 256:])], 1) / 448
    assert torch.equal(top, outer)
    spread = outer.repeat_interleave(256, 1)[:, :300]
    assert torch.equal(level, (largest / spread).to(torch.float8_e4m3fn).float())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e2m1", [0.0, 6.0]),
        ("e2m1~nan-max", [6.0, 6.0]),
        ("e4m3", [float("nan"), 448.0]),
        ("e4m3~nan-zero", [0.0, 448.0]),
        ("e4m3~nan-max", [448.0, 448.0]),
        ("e5m2~infinity", [float("nan"), float("inf")]),
        ("e5m2~infinity~nan-zero", [0.0, float("inf")]),
        ("q3.4~nan-max", [7.9375, 7.9375]),
        ("posit8", [float("nan"), float("nan")]),
    ],
)
def test_what_becomes_of_nan_and_infinity(text: str, expected: list[float]) -> None:
    y = get(text).cast(torch.tensor([torch.nan, torch.inf]))
    torch.testing.assert_close(y, torch.tensor(expected), rtol=0, atol=0, equal_nan=True)
