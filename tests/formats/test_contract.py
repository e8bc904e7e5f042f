"""Every named format keeps the contract, and formats that are deliberately wrong do not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import fields

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
    "lut4@channel0", "lut3@g32*float16", "lut2~absmax", "lut2@token~dynamic", "lut4@tensor*(int8@channel0*float16)",
    "lut2&lut2", "lut1@tile4x8",
]  # fmt: skip


@pytest.mark.parametrize("promise", contract.CONTRACT, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", [*FORMATS, *PLACED])
def test_every_format_keeps(name: str, promise: Callable[[Format], None]) -> None:
    promise(get(name))


def of_element(**methods: Callable) -> Format:
    """An int4 format in groups of 16 whose element has these methods in place of its own."""
    return Format(type("Wrong", (Int,), methods)(4, narrow=True), group(16))


def of_format(text: str = "int4n@g16", **methods: Callable) -> Format:
    """A format with these methods in place of its own."""
    right = get(text)
    return type("Wrong", (Format,), methods)(**{f.name: getattr(right, f.name) for f in fields(right)})


def rounds(change: Callable[[Tensor], Tensor]) -> Format:
    """Numbers of the element are changed after rounding."""
    return of_element(round_=lambda self, x, *args: change(Int.round_(self, x, *args)))


def writes_over(self: Format, x: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
    return x.copy_(Format.cast(self, x, parameters))


def fails_on_few(self: Format, x: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
    return Format.cast(self, x.reshape(-1, 8), parameters).reshape(x.shape)


def overflows(self: Format, x: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
    return Format.cast(self, x * 4, parameters) / 4 + x * 0 * (x * 4)


def trips_on_strides(self: Format, x: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
    flat = torch.as_strided(x, (x.numel(),), (1,))
    return Format.cast(self, flat.reshape(x.shape), parameters)


# what is wrong, the promise that it breaks, and a format with that fault
FAULTS: dict[str, tuple[Callable[[Format], None], Callable[[], Format]]] = {
    "codes shifted by one": (
        contract.cast_is_decode_of_encode,
        lambda: of_element(to_codes=lambda self, values: Int.to_codes(self, values) + 1),
    ),
    "decoded twice as large": (
        contract.cast_is_decode_of_encode,
        lambda: of_element(from_codes=lambda self, codes, dtype: Int.from_codes(self, codes, dtype) * 2),
    ),
    "always float32": (
        contract.cast_is_decode_of_encode,
        lambda: of_format(cast=lambda self, x, parameters=None: Format.cast(self, x.float(), parameters)),
    ),
    "memory order taken for tensor order": (
        contract.cast_is_decode_of_encode,
        lambda: of_format(cast=trips_on_strides),
    ),
    "one step smaller each time": (contract.is_idempotent, lambda: rounds(lambda y: y - y.sign())),
    "two numbers swapped": (contract.is_monotone, lambda: rounds(lambda y: torch.where(y == 3, 1.0, y))),
    "rounded up": (
        contract.is_odd,
        lambda: of_format(
            "int4n@g16", cast=lambda self, x, parameters: Format.cast(get("int4n@g16~up"), x, parameters)
        ),
    ),
    "toward zero": (
        contract.goes_to_the_nearest,
        lambda: of_element(round_=lambda self, x, *args: Int.round_(self, x.trunc_(), *args)),
    ),
    "every other number missing": (contract.goes_to_the_nearest, lambda: rounds(lambda y: (y / 2).trunc() * 2)),
    "codes of another type": (
        contract.keeps_codes_in_range,
        lambda: of_element(to_codes=lambda self, values: values.to(torch.int64)),
    ),
    "a text that leaves the rule out": (
        contract.has_a_text_form,
        lambda: of_format(
            "int4@g16~mse",
            __str__=lambda self: "int4@g16",
            __eq__=lambda self, other: (
                type(other) is Format and all(getattr(self, f.name) == getattr(other, f.name) for f in fields(Format))
            ),
            __hash__=None,
        ),
    ),
    "scales forgotten on disk": (
        contract.packs_to_the_byte,
        lambda: of_format(nbytes=lambda self, shape: -(-torch.Size(shape).numel() * self.bits // 8)),
    ),
    "codes too wide for their bits": (contract.packs_to_the_byte, lambda: rounds(lambda y: y * 2)),
    "single numbers refused": (contract.takes_empty_and_single, lambda: of_format(cast=fails_on_few)),
    "written over its input": (contract.leaves_its_input_alone, lambda: of_format(cast=writes_over)),
    "overflow on the way": (contract.survives_extremes, lambda: of_format(cast=overflows)),
    "nothing lies inside": (
        contract.passes_gradients,
        lambda: of_format(inside=lambda self, x, parameters=None: torch.zeros_like(x, dtype=torch.bool)),
    ),
    "a range of half its width": (
        contract.passes_gradients,
        lambda: of_format(inside=lambda self, x, parameters=None: Format.inside(self, x * 2, parameters)),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contract_rejects(fault: str) -> None:
    promise, wrong = FAULTS[fault]
    with pytest.raises((AssertionError, RuntimeError)):
        promise(wrong())


def test_every_promise_rejects_something() -> None:
    assert {promise for promise, _ in FAULTS.values()} == set(contract.CONTRACT)


@pytest.mark.parametrize("promise", contract.CONTRACT, ids=lambda f: f.__name__)
def test_the_contract_accepts_what_the_faults_start_from(promise: Callable[[Format], None]) -> None:
    if promise not in (contract.has_a_text_form, contract.passes_gradients):  # a class of the test has no text
        promise(of_element())
    if promise is not contract.has_a_text_form:
        promise(of_format())


@pytest.mark.parametrize(
    "family",
    [
        [f"int{bits}@g32" for bits in range(2, 17)],
        [f"uint{bits}@g32" for bits in range(2, 17)],
        [f"int{bits}@g32*float16" for bits in range(2, 9)],
        [f"int{bits}@g32*e8m0~ceil" for bits in range(2, 9)],
        [f"q2.{frac}" for frac in range(10)],
        ["e2m1*float32", "e2m3*float32", "e3m4*float32", "float16*float32"],
        ["mxfp4", "mxfp6", "mxint8"],
        ["bfp4", "bfp6", "bfp8"],
        ["msfp12", "msfp14", "msfp16"],
        ["bm4", "bm6", "bm8"],
        ["blog4", "blog6"],
        ["posit4", "posit6", "posit8"],
        ["binary@g16", "binary2@g16", "binary3@g16"],
        ["binary@g32", "ternary@g32", "nf4@g32"],
        ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0"],
        ["q4_0", "q5_0"],
        ["q4_1", "q5_1"],
        ["e5m2", "e4m3", "e3m4", "bfloat16x2", "bfloat16x3"],
        ["bfloat16", "tf32", "float32"],
    ],
    ids=lambda family: family[0],
)
def test_error_falls_with_bits(family: list[str]) -> None:
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    errors = [float((get(text).cast(x) - x).square().sum()) for text in family]
    assert all(a > b for a, b in itertools.pairwise(errors)), errors


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
