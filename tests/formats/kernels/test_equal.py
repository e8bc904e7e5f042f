"""Kernels give the bits of the torch definition: every named format, and many others."""

# ruff: noqa: A001
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.errors import OptionError
from planish.formats import FORMATS, Float, Format, Int, Pow2, get, group, kernels
from planish.formats.kernels.compiled import FLAGS, load
from tests.formats.contract import numbers, same
from tests.formats.kernels.same import differences, torch_only
from tests.support import require_tool

PLACED = [
    "int8@channel0", "int8n@channel1", "int8@token~dynamic", "int4@g32*float16", "int4+zp@g32", "uint4@g32",
    "uint8@token", "uint8@channel1", "int4@g7", "fp8@tile4x8", "nf4@tile8x16", "uint8@tile4x8", "nf4@g64",
    "nf4@g64*(int8@g256*float32)", "q3.4", "uq4.4", "q-2.9", "e4m3~infinity", "e5m2~infinity", "float16~saturate",
    "float32~saturate", "int8~away", "int8~down", "int8~up", "e4m3~away", "e4m3~up", "e4m3~down", "bfloat16~away",
    "tf32~down", "int4@g32axis0", "nvfp4~dynamic", "e2m3@g32*e8m0~ceil", "mxfp4~nan-max", "e4m3~nan-zero",
    "e4m3~nan-max", "posit8~nan-zero", "int1", "int24", "uint24-zp", "se4m0z", "e8m0", "se3m0z~up", "e3m3b60",
    "e7m3b0", "fp8*e5m2", "{-1.0,0.0,0.5,2.0}~away", "nf4~up", "nf4~down", "e7m12b125", "uint8@g16~ceil",
    "uint4-zp@g32", "int3@g16*(int6@g16*float16)", "e2m1@g32*(e8m0~up)", "e4m3@g32*e8m0", "int8@g32*(e8m0~up)",
    "q1.6@g8*(e8m0~up)", "e5m10@g16*e8m0", "e4m3fnuz@g16*e8m0~floor",
    "mxfp4~mse~dynamic", "mxfp6~mse", "mxint8~mse", "mxfp8@g7~mse", "int8@g300*e8m0~mse", "e3m0@g32*e8m0~mse~down",
    "e2m1@g16*(e4m3*e8m0~mse)", "int4@g32*(int6*e8m0~mse)",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _compiler() -> None:
    require_tool("g++", "clang++", "c++")


@pytest.mark.parametrize("name", [*FORMATS, *PLACED])
def test_equals_torch(name: str) -> None:
    assert differences(get(name)) == []


@pytest.mark.parametrize("name", ["int8", "uint8@channel0", "mxfp4", "mxint8", "nvfp4", "nf4@g64", "log4", "posit8"])
def test_portable_path_equals_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    portable = load(FLAGS)
    monkeypatch.setattr(kernels, "library", lambda: portable)
    kernels._cpu.cache_clear()
    kernel = kernels.for_(get(name), torch.ones(3))
    assert kernel is not None
    assert kernel.compiled is portable
    try:
        assert differences(get(name)) == []
        for rounding in ("away", "down", "up"):
            if rounding in get(name).element.roundings:
                assert differences(get(f"{name}~{rounding}")) == []
    finally:
        kernels._cpu.cache_clear()


elements = st.one_of(
    st.builds(lambda b, s, n: Int(b, 0, s, n and s and b > 1), st.integers(1, 24), st.booleans(), st.booleans()),
    st.builds(lambda b, f: Int(b, f), st.integers(2, 16), st.integers(-20, 20)),
    st.builds(
        lambda e, m, s: Float(e, m, specials=s),
        st.integers(2, 7),
        st.integers(1, 10),
        st.sampled_from(["ieee", "fn", "fnuz", "finite"]),
    ),
    st.builds(Pow2, st.integers(2, 7), signed=st.booleans(), zero=st.booleans(), nan=st.booleans()),
)
scales = st.sampled_from(
    [
        get(name)
        for name in (
            *("float32", "e8m0", "float16", "e4m3", "e4m3*float32"),
            *(
                "e4m3*float16",
                "e5m2*e8m0~floor",
                "int8*bfloat16",
                "uint6*float32~ceil",
                "e4m3*(e5m2*float32)",
                "e4m3*e8m0~mse",
            ),
        )
    ]
)


@settings(max_examples=60)
@given(elements, scales, st.integers(1, 70), st.sampled_from(["absmax", "floor", "ceil", "mse"]), st.data())
def test_any_format_equals_torch(element, scale: Format, size: int, rule, data: st.DataObject) -> None:
    format = Format(element, group(size), scale, rule=rule, rounding=data.draw(st.sampled_from(["even", "down"])))
    bits = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=150))
    x = torch.tensor(bits, dtype=torch.int32).view(torch.float32).reshape(1, -1)
    assert kernels.for_(format, x) is not None
    codes, y = format.encode(x), format.cast(x)
    with torch_only():
        expected = format.encode(x)
        assert same(y, format.cast(x))
    assert torch.equal(codes.codes, expected.codes)
    assert all(same(a.float(), b.float()) for a, b in zip(codes.parameters, expected.parameters, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "int8",
        "uint8",
        "int8@channel0",
        "int8@channel1",
        "mxfp4",
        "nvfp4",
        "mxfp4~mse",
        "nf4@g64",
        "int4@g7",
        "uint4@token",
    ],
)
def test_threads_change_nothing(name: str) -> None:
    """Many numbers, so that several threads have enough to do."""
    format, x, threads = get(name), numbers(700, 1001), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = format.encode(x)
        torch.set_num_threads(3)
        together = format.encode(x)
        assert torch.equal(alone.codes, together.codes)
        assert all(same(a.float(), b.float()) for a, b in zip(alone.parameters, together.parameters, strict=True))
        assert same(alone.decode(), together.decode())
        assert same(format.cast(x), together.decode())
        packed, again = alone.pack(), together.pack()
        assert all(torch.equal(packed[key], again[key]) for key in packed)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "name", ["int8", "int8@channel1", "mxfp4~dynamic", "mxfp4~mse~dynamic", "nvfp4~dynamic", "nf4@g64", "int4@g7"]
)
@pytest.mark.parametrize("first", [0, 1])
def test_large_results_equal_torch(name: str, first: int) -> None:
    """Above 8 MiB results go past the caches, where memory begins at a multiple of the vectors' size."""
    format, x, threads = get(name), numbers(1400, 1512), torch.get_num_threads()
    out = torch.empty(x.numel() + first)[first:].view_as(x)
    with torch_only():
        given = format.parameters(x)
        expected = format.cast(x, given)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert same(format.cast(x, given, out=out), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["int8", "int8@channel1", "mxfp4", "nf4@g64", "q4_1", "binary2"])
def test_out(name: str) -> None:
    format, x = get(name), numbers(6, 64)
    expected = format.cast(x)
    for kind in (torch.float32, torch.bfloat16):
        out = torch.empty(6, 64, dtype=kind)
        assert format.cast(x.to(kind), out=out) is out
        assert same(out, format.cast(x.to(kind)))
    across = torch.empty(64, 6).t()
    assert same(format.cast(x, out=across), expected)
    assert across.stride() == (1, 6)
    assert same(format.cast(x, out=x), expected)
    with pytest.raises(OptionError, match="out is"):
        format.cast(x, out=torch.empty(3))
    with pytest.raises(OptionError, match="out is"):
        format.cast(x, out=torch.empty(6, 64, dtype=torch.float64))


@pytest.mark.parametrize(
    "name",
    [
        "int8",
        "int4@g32",
        "int4@g7",
        "mxfp4~dynamic",
        "nvfp4~dynamic",
        "uint4@g24~dynamic",
        "mxfp6",
        "nf4@g64",
        "int3@channel1",
        "int12",
        "q4_1",
        "binary2",
    ],
)
def test_pack_is_encode_and_pack(name: str) -> None:
    format = get(name)
    for x in (numbers(40, 96), numbers(37, 131), numbers(64, 48).t(), numbers(300, 128).bfloat16()):
        expected, packed = format.encode(x).pack(), format.pack(x)
        assert list(packed) == list(expected)
        assert all(torch.equal(packed[key], expected[key]) for key in expected)
        again = {key: torch.zeros_like(tensor) for key, tensor in packed.items()}
        assert format.pack(x, out=again) is again
        assert all(torch.equal(again[key], expected[key]) for key in expected)
