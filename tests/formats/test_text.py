"""The text form round-trips for any format, and says which part it cannot read."""

# ruff: noqa: A001, A002
from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.errors import OptionError, PlanishError, UnknownName
from planish.formats import FORMATS, SOURCES, Block, Codebook, Float, Format, Int, Pow2, get

ints = st.builds(
    lambda bits, frac, signed, narrow: Int(bits, frac, signed, narrow and signed and bits > 1),
    st.integers(1, 32), st.integers(-40, 40), st.booleans(), st.booleans(),
)  # fmt: skip
whole_ints = ints.map(lambda i: Int(i.bits, 0, i.signed))
floats = st.builds(
    lambda e, m, bias, specials: (e, m, bias, specials),
    st.integers(1, 8), st.integers(1, 23), st.none() | st.integers(-20, 127),
    st.sampled_from(["ieee", "fn", "fnuz", "finite"]),
)  # fmt: skip


def make_float(fields: tuple) -> Float | None:
    try:
        return Float(*fields)
    except OptionError:
        return None


float32s = st.integers(0, 0x7F000000).map(lambda n: struct.unpack("f", struct.pack("I", n))[0])
books = st.sets(float32s, min_size=2, max_size=20).map(lambda v: Codebook(tuple(sorted(v))))
powers = st.builds(
    Pow2, st.integers(2, 7), st.none() | st.integers(0, 9), st.booleans(), st.booleans(), st.booleans()
)  # fmt: skip
elements = st.one_of(ints, floats.map(make_float).filter(bool), books, powers)
sizes = st.dictionaries(st.integers(-4, 4), st.none() | st.integers(1, 300), max_size=3)
blocks = st.builds(
    lambda s, others, ragged: Block(tuple(s.items()), others, ragged),
    sizes, st.sampled_from(["whole", "one"]), st.sampled_from(["pad", "refuse"]),
)  # fmt: skip


@st.composite
def formats(draw: st.DrawFn, depth: int = 2) -> Format:
    element = draw(elements)
    scale = draw(st.none() | formats(depth=depth - 1)) if depth else None
    affine = scale and isinstance(element, Int) and not element.frac and not element.narrow and draw(st.booleans())
    return Format(
        element,
        draw(st.none() | blocks) if scale else None,
        scale,
        draw(st.just(element) | whole_ints) if affine else None,
        draw(st.sampled_from(element.roundings)),
        draw(st.sampled_from(element.overflows)),
        draw(st.sampled_from(["absmax", "mse"] if affine else ["absmax", "floor", "mse"])) if scale else "absmax",
        bool(scale) and depth == 2 and draw(st.booleans()),
    )


@settings(max_examples=400, deadline=None)
@given(formats())
def test_any_format_round_trips(format: Format) -> None:
    text = str(format)
    assert " " not in text
    back = Format.parse(text)
    assert back == format
    assert hash(back) == hash(format)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="intuqe0123456789m@g*~+-zp:.()[]{},|!dynamicfloatmse", max_size=24))
def test_any_other_text_is_refused_cleanly(text: str) -> None:
    try:
        format = Format.parse(text)
    except PlanishError:
        return
    assert Format.parse(str(format)) == format


@pytest.mark.parametrize(
    "text",
    [
        "int8", "int8n", "int8@channel0", "uint8@tensor", "uint8-zp", "int8+zp@g32", "int4@g32*float16",
        "int4@g32axis0", "e2m1@g32*e8m0~floor", "e2m1@g16*(e4m3*float32)", "int8@token~dynamic",
        "int4@g128*float16~mse",
        "q3.4",
        "uq4.4", "q3.4~stochastic", "e4m3*float32", "e5m2~infinity", "e4m3b11fnuz", "int8@tile16x16",
        "int8@[0:1,-1:32|one]",
        "int4@g32!*float16", "{-1.0,0.0,1.0}@g64", "int8+zp:int32", "float16", "tf32", "int8@token!",
        "float16~saturate",
    ],
)  # fmt: skip
def test_spelled_as_a_person_would(text: str) -> None:
    assert str(Format.parse(text)) == text


@pytest.mark.parametrize("name", FORMATS)
def test_names(name: str) -> None:
    assert get(name) is FORMATS[name]
    assert get(str(get(name))) == get(name)
    assert SOURCES[name]
    with suppress(OptionError):
        assert Format.parse(name) == get(name), "a name that is also a text means the same"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("int0", "bits"),
        ("int99@tensor", "bits"),
        ("e9m3", "exponent"),
        ("flaot16@g32", "element"),
        ("int8@row", "block"),
        ("int8@g0", "sizes"),
        ("int8*flaot16", "element"),
        ("int8~quick", "option"),
        ("int8~away~down", "option"),
        ("e2m1~infinity", "overflow"),
        ("float16~dynamic", "is_dynamic"),
        ("e4m3+zp*float32", "zero_point"),
        ("{0.0,x}", "element"),
        ("int8@[9|one]", "block"),
    ],
)
def test_errors_name_the_part(text: str, part: str) -> None:
    with pytest.raises(OptionError) as caught:
        get(text)
    assert caught.value.where.startswith(part)


def test_unknown_names_show_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mxfp4'"):
        get("mxpf4")
    with pytest.raises(OptionError, match="not a format"):
        get("__import__('os').system('true')")
    with pytest.raises(OptionError, match="a name or a text, not int"):
        get(8)  # type: ignore[arg-type]
