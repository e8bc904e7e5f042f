"""The figures of formats against the ones that their papers and standards print."""

from __future__ import annotations

import math

import pytest
import torch

from planish.formats import FORMATS, get
from planish.formats.facts import bits_per_value, facts

FP8 = torch.finfo(torch.float8_e4m3fn)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("mxfp4", 4.25),
        ("mxfp6", 6.25),
        ("mxfp8", 8.25),
        ("nvfp4", 4.5),
        ("q2_k", 2.625),
        ("q3_k", 3.4375),
        ("q4_k", 4.5),
        ("q5_k", 5.5),
        ("q6_k", 6.5625),
        ("q4_0", 4.5),
        ("q4_1", 5.0),
        ("q5_0", 5.5),
        ("q5_1", 6.0),
        ("q8_0", 8.5),
        ("nf4_double", 4 + 8 / 64 + 32 / (64 * 256)),
        ("nf4@g64", 4.5),
        ("int8@channel0", 8.0),
        ("int4+zp@g32*float16", 4.625),
        ("binary3@g64", 4.5),
        ("bfloat16x3", 48.0),
    ],
)
def test_bits_per_value(name: str, bits: float) -> None:
    assert bits_per_value(get(name)) == bits
    form = get(name)
    if form.scale is not None and form.block is not None and form.block.others == "one":
        shape = (4, 64 * 256)
        assert form.nbytes(shape) * 8 / math.prod(shape) == pytest.approx(bits, rel=1e-3)


def test_range_and_precision() -> None:
    e4m3 = facts("e4m3")
    assert (e4m3.lowest, e4m3.highest, e4m3.smallest) == (FP8.min, FP8.max, FP8.smallest_normal / 8)
    assert e4m3.relative_error == pytest.approx(2**-4 / (1 + 2**-4))
    assert facts("float32").relative_error == pytest.approx(2**-24, rel=1e-6)
    assert facts("int8").relative_error == pytest.approx(0.5 / 63.5)
    assert facts(get("int32")).relative_error == pytest.approx(2**-31, rel=1e-6)
    assert facts("binary").relative_error == 1.0
    assert facts("posit8").highest == 2.0**24
    assert facts("q3.4").step == 1 / 16
    assert facts("nvfp4").scaled
    assert not facts("e4m3").scaled


@pytest.mark.parametrize("name", FORMATS)
def test_every_name_has_facts(name: str) -> None:
    found = facts(name)
    assert found.source
    assert found.bits_per_value >= found.bits
    assert found.lowest < found.highest
    assert found.step > 0
    assert 0 < found.smallest <= found.highest
    assert facts(get(name)).text == found.text
    assert get(facts(get(name)).name) == get(name)


def test_the_relative_error_is_the_one_measured() -> None:
    for name in ("e4m3", "e2m1", "mxint8", "log4", "posit6es1", "nf4", "q3.4"):
        element = get(name).element
        x = torch.linspace(element.maximum / 2, element.maximum, 100_001, dtype=torch.float64)
        measured = float(((element.round_(x.clone()) - x).abs() / x).max())
        assert facts(name).relative_error == pytest.approx(measured, rel=1e-3), name
