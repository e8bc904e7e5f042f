"""What does not fit is refused at the door: the error names the field, and what it accepts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from planish.errors import DataError, OptionError, UnknownName
from planish.formats import Codebook, Codes, Float, Format, Int, Lut, Posit, Pow2, fixed, get, group

ONES, ROW = torch.ones(4, 33), torch.ones(3)

CASES: dict[str, tuple[Callable[[], object], type, str, str]] = {
    # elements
    "no bits": (lambda: Int(0), OptionError, "bits", "1 to 32"),
    "too many bits": (lambda: Int(33), OptionError, "bits", "1 to 32"),
    "a wide exponent": (lambda: Float(9, 3), OptionError, "exponent", "1 to 8"),
    "no mantissa": (lambda: Float(4, 0), OptionError, "mantissa", "1 to 23"),
    "a bias beyond float32": (lambda: Float(4, 3, 500), OptionError, "bias", "2**-126"),
    "strange specials": (lambda: Float(4, 3, specials="none"), OptionError, "specials", "ieee, fn, fnuz, finite"),  # type: ignore[arg-type]
    "a wide shared exponent": (lambda: Pow2(9), OptionError, "exponent", "2 to 8"),
    "a long posit": (lambda: Posit(16), OptionError, "bits", "3 to 8"),
    "a posit of es 3": (lambda: Posit(8, 3), OptionError, "es", "0 to 2"),
    "codebook duplicates": (lambda: Codebook((0.0, 1.0, 1.0)), OptionError, "values", "without duplicates"),
    "codebook disorder": (lambda: Codebook((1.0, 0.0)), OptionError, "values", "sorted"),
    "codebook NaN": (lambda: Codebook((0.0, float("nan"))), OptionError, "values", "finite"),
    "codebook not float32": (lambda: Codebook((0.0, 0.1)), OptionError, "values", "float32"),
    "codebook too long": (lambda: Codebook(tuple(map(float, range(300)))), OptionError, "values", "2 to 256"),
    "a learned codebook too long": (lambda: Lut(9), OptionError, "bits", "1 to 8"),
    "fixed point of no bits": (lambda: fixed(0, 0, signed=False), OptionError, "bits", "1 to 32"),
    # fields
    "an element that is text": (lambda: Format("int8"), OptionError, "element", "Int, Float"),  # type: ignore[arg-type]
    "a scale that is text": (lambda: Format(Int(8), scale="float16"), OptionError, "scale", "get('float16')"),  # type: ignore[arg-type]
    "a block that is a number": (lambda: Format(Int(8), 32), OptionError, "block", "group(32)"),  # type: ignore[arg-type]
    "an unknown rounding": (lambda: Format(Int(8), rounding="up-ish"), OptionError, "rounding", "even, away"),  # type: ignore[arg-type]
    "a rounding of powers": (lambda: get("int8~log"), OptionError, "rounding", "even, away"),
    "infinity without one": (lambda: get("e2m1~infinity"), OptionError, "overflow", "saturate"),
    "NaN kept without one": (lambda: get("int8~nan-keep"), OptionError, "nan", "zero, max"),
    "an unknown rule": (lambda: Format(Int(8), rule="best"), OptionError, "rule", "absmax, floor, ceil"),  # type: ignore[arg-type]
    "a rule without a scale": (lambda: get("float16~mse"), OptionError, "rule", "float32"),
    "a block without a scale": (lambda: get("e4m3@g32"), OptionError, "block", "give it a scale"),
    "dynamic without a scale": (lambda: get("float16~dynamic"), OptionError, "is_dynamic", "give it a scale"),
    "an offset without a scale": (lambda: get("uint4-zp*none-(float16)"), OptionError, "offset", "give it a scale"),
    "an offset of signed codes": (lambda: get("int4-(float16)"), OptionError, "offset", "unsigned"),
    "offset and zero point": (lambda: get("uint4+zp-(float16)"), OptionError, "offset", "zero_point=None"),
    "a zero point of a float": (lambda: get("e4m3+zp*float32"), OptionError, "zero_point", "Int(8"),
    "a zero point with a fraction": (lambda: get("int8+zp:q3.4"), OptionError, "zero_point", "Int(8"),
    "the floor rule with a zero point": (lambda: get("uint8~floor"), OptionError, "rule", "'absmax'"),
    "the peak of positive numbers": (lambda: get("uint8-zp~peak"), OptionError, "rule", "'absmax'"),
    "a dynamic scale": (lambda: get("int8*(e4m3*float32~dynamic)"), OptionError, "scale", "outer"),
    "a dynamic residual": (lambda: get("int8&int8~dynamic"), OptionError, "residual", "outer"),
    "a residual in a scale": (lambda: get("int8*(float16&float16)"), OptionError, "scale", "one level"),
    "too many levels": (lambda: get("int32*none&int32*none"), OptionError, "residual", "62 bits"),
    "a learned codebook of nothing": (lambda: get("lut4*none"), OptionError, "scale", "float32"),
    "a learned codebook of one sign": (lambda: get("lut4*e8m0"), OptionError, "scale", "float32"),
    "a learned codebook with an offset": (lambda: get("lut4-(float16)"), OptionError, "offset", "offset=None"),
    "a learned codebook by the floor rule": (lambda: get("lut4~floor"), OptionError, "rule", "'absmax' or 'mse'"),
    "scales in a learned codebook": (lambda: get("int8*lut4"), OptionError, "scale", "float16"),
    # blocks
    "an empty block": (lambda: group(0), OptionError, "sizes", "1 number or more"),
    "an axis too far": (lambda: get("int8@channel4").parameters(ONES), OptionError, "block", "does not fit"),
    "a ragged block refused": (lambda: get("int4@g32!").cast(ONES), OptionError, "block", "ragged='pad'"),
    "a tile of a vector": (lambda: get("bm8").cast(ROW), OptionError, "block", "does not fit"),
    "an axis twice": (lambda: get("int4@[0:2,-2:2|one]").cast(ONES), OptionError, "block", "twice"),
    # text
    "an unknown name": (lambda: get("mxpf4"), UnknownName, "", "did you mean 'mxfp4'"),
    "an unknown name with options": (lambda: get("mxpf4~dynamic"), UnknownName, "element", "did you mean 'mxfp4'"),
    "an unknown scale": (lambda: get("int8*flaot16"), OptionError, "element", "one like int8"),
    "an unknown block": (lambda: get("int8@row"), OptionError, "block", "tensor, token"),
    "an unknown option": (lambda: get("int8~quick"), OptionError, "option", "even, away"),
    "two roundings": (lambda: get("int8~away~down"), OptionError, "option", "second time"),
    "two blocks": (lambda: get("int8@g32@g16"), OptionError, "block", "second time"),
    "half a zero point": (lambda: get("int8+z"), OptionError, "zero point", "+zp"),
    "half an offset": (lambda: get("uint4-(float16)x"), OptionError, "offset", "-(float16)"),
    "brackets that do not close": (lambda: get("int4*(e4m3"), OptionError, "", "int4@g32*float16~mse"),
    "no text": (lambda: get(""), OptionError, "", "int4@g32*float16~mse"),
    "not a text": (lambda: get(8), OptionError, "format", "a name or a text"),  # type: ignore[arg-type]
    # tensors
    "integers": (lambda: get("int8").cast(torch.arange(3)), DataError, "", "x.float()"),
    "booleans": (lambda: get("int8").cast(torch.ones(3, dtype=torch.bool)), DataError, "", "x.float()"),
    "complex numbers": (lambda: get("int8").encode(ROW.to(torch.complex64)), DataError, "", "x.float()"),
    "NaN in a weight": (lambda: get("int8").parameters(torch.tensor([1.0, torch.nan])), DataError, "", "clean"),
    "an infinite range": (lambda: get("int8").parameters(low=ROW, high=ROW / 0), DataError, "", "clean"),
    "a NaN scale": (lambda: get("int8").encode(ROW, (torch.tensor(torch.nan),)), DataError, "parameters", "is NaN"),
    "no parameters": (lambda: get("int8").cast(ROW, ()), OptionError, "parameters", "(scale)"),
    "a missing zero point": (lambda: get("uint8").cast(ROW, (ROW[0],)), OptionError, "parameters", "zero_point"),
    "scales of another shape": (lambda: get("int8@channel0").cast(ONES, (ROW,)), OptionError, "parameters", "blocks"),
    "codebooks of another shape": (
        lambda: get("lut2@channel0").cast(ONES, (torch.ones(3, 4),)), OptionError, "parameters", "blocks",
    ),
    "k-means without a tensor": (lambda: get("lut4").parameters(low=ROW, high=ROW), OptionError, "rule", "(x)"),
    "neither tensor nor range": (lambda: get("int8").parameters(), OptionError, "parameters", "low and high"),
    "a search without a tensor": (lambda: get("int8~mse").parameters(low=ROW, high=ROW), OptionError, "rule", "(x)"),
    "a mean without a tensor": (lambda: get("binary").parameters(low=ROW, high=ROW), OptionError, "rule", "(x)"),
    "a residual without a tensor": (
        lambda: get("int4&int4").parameters(low=ROW, high=ROW),
        OptionError, "residual", "(x)",
    ),
    # bytes
    "too few bytes": (
        lambda: Codes.unpack(get("float16").encode(ROW).pack(), get("float16"), (4,)),
        DataError, "", "8 bytes",
    ),
    "no scales": (
        lambda: Codes.unpack({"codes": get("int8").encode(ROW).pack()["codes"]}, get("int8"), (3,)),
        DataError, "tensors", "codes, scale",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_error_names_the_field_and_what_it_accepts(case: str) -> None:
    act, kind, field, accepted = CASES[case]
    with pytest.raises(kind) as caught:
        act()
    error = caught.value
    assert error.where.startswith(field), error
    assert accepted in str(error), error
    assert error.exit_code == 2
