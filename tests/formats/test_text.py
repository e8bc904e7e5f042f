"""The text form round-trips for any format, and says which part it cannot read."""

# ruff: noqa: A001, A002
from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.errors import OptionError, PlanishError, UnknownName
from planish.formats import AF4, FORMATS, NF4, SOURCES, Block, Codebook, Float, Format, Int, Posit, Pow2, get, group

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
posits = st.builds(Posit, st.integers(3, 8), st.integers(0, 2))
elements = st.one_of(ints, floats.map(make_float).filter(bool), books, powers, posits, st.sampled_from([NF4, AF4]))
sizes = st.dictionaries(st.integers(-4, 4), st.none() | st.integers(1, 300), max_size=3)
blocks = st.builds(
    lambda s, others, ragged: Block(tuple(s.items()), others, ragged),
    sizes, st.sampled_from(["whole", "one"]), st.sampled_from(["pad", "refuse"]),
)  # fmt: skip


@st.composite
def formats(draw: st.DrawFn, depth: int = 2, inner: bool = False) -> Format:
    element = draw(elements)
    scale = draw(st.none() | formats(depth=depth - 1, inner=True)) if depth else None
    affine = scale and isinstance(element, Int) and not element.frac and not element.narrow and draw(st.booleans())
    shifted = scale and not affine and element.minimum == 0 and draw(st.booleans())
    ends = affine or shifted or element.minimum >= 0
    rules = ["absmax", "ceil", "mse"] + ([] if affine or shifted else ["floor", "mean", "twn"]) + ["peak"] * (not ends)
    residual = None if inner or not depth else draw(st.none() | formats(depth=depth - 1))
    return Format(
        element,
        draw(st.none() | blocks) if scale else None,
        scale,
        draw(st.just(element) | whole_ints) if affine else None,
        draw(st.sampled_from(element.roundings)),
        draw(st.sampled_from(element.overflows)),
        draw(st.sampled_from(rules)) if scale else "absmax",
        bool(scale) and depth == 2 and draw(st.booleans()),
        draw(st.sampled_from(element.nans)),
        draw(formats(depth=depth - 1, inner=True)) if shifted else None,
        residual if residual and residual.bits + element.bits <= 62 else None,
    )


@settings(max_examples=400)
@given(formats())
def test_any_format_round_trips(format: Format) -> None:
    text = str(format)
    assert " " not in text
    back = Format.parse(text)
    assert back == format
    assert hash(back) == hash(format)


@settings(max_examples=300)
@given(st.text(alphabet="intuqe0123456789m@g*~+-zp:.()[]{},|!&dynamicfloatmse", max_size=24))
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
        "float16~saturate", "posit8", "posit6es1", "af4@g64", "sign~away~mean&sign~away~mean", "e4m3~nan-max",
        "uint4@g32*float16-(float16)", "uint4@g32*(uint6-zp@g8*float16)-(uint6-zp@g8*float16)~mse",
        "e2m1@g32*e8m0~ceil", "int4@g32*float16~peak", "se3m0z*float32~log", "int8@channel0~dynamic&int4@g32",
    ],
)  # fmt: skip
def test_spelled_as_a_person_would(text: str) -> None:
    assert str(Format.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "spelled_out"),
    [
        ("mxfp8~dynamic", "e4m3@g32*e8m0~floor~dynamic"),
        ("mxfp4@g16", "e2m1@g16*e8m0~floor"),
        ("mxfp4@g16~ceil", "e2m1@g16*e8m0~ceil"),
        ("mxfp4~absmax", "e2m1@g32*e8m0"),
        ("nvfp4~mse", "e2m1@g16*(e4m3*float32)~mse"),
        ("nvfp4*e8m0", "e2m1@g16*e8m0"),
        ("e2m1@g16*fp8", "e2m1@g16*(e4m3*float32)"),
        ("uint8-zp", "uint8-zp"),
        ("uint4-(bfloat16)", "uint4-(bfloat16)"),
        ("q4_k*float16-(float16)", "uint4@g32*float16-(float16)"),
        ("binary2@g64", "sign@g64~away~mean&sign@g64~away~mean"),
        ("binary2@g64~dynamic", "sign@g64~away~mean~dynamic&sign@g64~away~mean"),
        ("mxfp4&mxfp4", "e2m1@g32*e8m0~floor&e2m1@g32*e8m0~floor"),
        ("e4m3~infinity", "e4m3~infinity"),
        ("float16~saturate~even", "float16~saturate"),
        ("posit8es2", "posit8"),
    ],
)
def test_what_follows_a_name_changes_its_fields(text: str, spelled_out: str) -> None:
    assert str(get(text)) == spelled_out
    assert get(text) == Format.parse(spelled_out)


def test_placing_a_residual_places_its_levels() -> None:
    assert get("binary3").group(64) == get("binary3@g64") == get("binary3").at(group(64))
    assert [e.bits for _, e in get("binary3@g64").levels] == [32] * 3
    assert str(get("bfloat16x2").per_channel()) == "bfloat16&bfloat16"


def test_names_are_attributes() -> None:
    import planish.formats as formats

    assert formats.int8 is get("int8")
    assert formats.nf4_double is get("nf4_double")
    assert "mxfp4" in dir(formats)
    with pytest.raises(AttributeError, match="mxpf4"):
        formats.mxpf4  # noqa: B018


@pytest.mark.parametrize("name", FORMATS)
def test_names(name: str) -> None:
    assert get(name) is FORMATS[name]
    assert get(str(get(name))) == get(name)
    assert SOURCES[name]
    with suppress(OptionError):
        assert Format.parse(name) == get(name), "a name that is also a text means the same"


def test_unknown_names_show_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mxfp4'"):
        get("mxpf4")
    with pytest.raises(OptionError, match="not a format"):
        get("__import__('os').system('true')")
    with pytest.raises(OptionError, match="a name or a text, not int"):
        get(8)  # type: ignore[arg-type]
