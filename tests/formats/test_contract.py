"""Every named format keeps the contract, and formats that are deliberately wrong do not."""

# ruff: noqa: A001
from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from planish.formats import E2M1, E4M3, FORMATS, Float, Format, Int, fixed, get, group
from tests.formats import contract

PLACED = [
    "int8@channel0", "int8n@channel1", "int8@token~dynamic", "int4@g32*float16", "int4+zp@g32", "int4@g64*float16~mse",
    "uint8@tensor~dynamic", "uint4-zp@channel0", "int8@g32~dynamic", "int8@tile4x8", "int4@g16*(uint6-zp@g4*float16)",
    "e4m3@channel0*float32", "e2m1@g32*(e8m0~up)", "q3.4", "uq4.4~away", "q2.5n~down", "se4m0z*float32", "nf4@g64",
    "e3m2~up", "int8@channel0~mse", "int16@channel0", "e4m3ieee~infinity", "q7.16", "uint8@g1~dynamic", "int4@g1",
]  # fmt: skip


@pytest.mark.parametrize("promise", contract.CONTRACT, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", [*FORMATS, *PLACED])
def test_every_format_keeps(name: str, promise: Callable[[Format], None]) -> None:
    promise(get(name))


def wrong(broken: str) -> Format:
    """An int4 format with one fault."""

    class Wrong(Int):
        def round_(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
            y = super().round_(x, *args, **kwargs)
            if broken == "biased":
                y = torch.where(y > 0, (y - 1).clamp(min=0), y)
            if broken == "not monotone":
                y = torch.where(y == 3, 1.0, y)
            if broken == "off the grid":
                y = y * 0.75
            if broken == "one bit too many":
                y = y * 2
            return y

        def to_codes(self, values: Tensor) -> Tensor:
            return super().to_codes(values) + (broken == "codes shifted")

        def from_codes(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
            return super().from_codes(codes, dtype) * (2.0 if broken == "decoded twice as large" else 1.0)

    return Format(Wrong(4, narrow=True), group(16))


@pytest.mark.parametrize(
    "fault",
    ["biased", "not monotone", "off the grid", "one bit too many", "codes shifted", "decoded twice as large"],
)
def test_the_contract_rejects(fault: str) -> None:
    format = wrong(fault)
    kept = []
    for promise in contract.CONTRACT:
        if promise is contract.has_a_text_form:  # a class of the test has no text
            continue
        try:
            promise(format)
        except AssertionError:
            continue
        kept.append(promise.__name__)
    assert len(kept) < len(contract.CONTRACT) - 1, "no promise noticed the fault"


def test_the_contract_accepts_what_the_faults_start_from() -> None:
    for promise in contract.CONTRACT:
        if promise is not contract.has_a_text_form:
            promise(wrong("nothing"))


@pytest.mark.parametrize("scale", ["float32", "float16", "e8m0"])
def test_error_falls_with_bits(scale: str) -> None:
    x = contract.numbers(32, 256)
    errors = [(get(f"int{bits}@g32*{scale}").cast(x) - x).square().sum() for bits in range(2, 9)]
    assert all(a > b for a, b in itertools.pairwise(errors))


def test_error_falls_with_smaller_blocks_and_searched_scales() -> None:
    x = contract.numbers(32, 256)

    def error(text: str) -> float:
        return float((get(text).cast(x) - x).square().sum())

    assert error("int4@tensor") > error("int4@channel0") > error("int4@g64") > error("int4@g16")
    assert error("int4@g32") > error("int4@g32~mse")
    assert error("uint4@channel0") > error("uint4@channel0~mse")


def test_one_line_makes_a_format_that_works_everywhere() -> None:
    mine = Format(Float(3, 3, specials="finite"), group(8), Format(Int(6, signed=False), scale=None))
    for promise in contract.CONTRACT:
        promise(mine)
    assert str(mine) == "e3m3finite@g8*(uint6-zp*none)"


def test_named_sizes() -> None:
    assert get("mxfp4").nbytes((4, 64)) == 4 * 64 // 2 + 4 * 2
    assert get("int8").per_channel().nbytes((16, 10)) == 160 + 16 * 4
    assert get("uint8").nbytes((10,)) == 10 + 4 + 1
    assert get("nvfp4").nbytes((2, 32)) == 32 + 4 + 4
    assert fixed(3, 4).nbytes((5,)) == 5
    assert fixed(3, 4).element == Int(8, 4)
    assert (E4M3.maximum, E2M1.maximum) == (448.0, 6.0)
