"""The formats that have a name, one line each: name, text form, source."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from planish.errors import OptionError, UnknownName
from planish.formats.format import Format
from planish.formats.integer import Int
from planish.registry import Registry

SOURCES: dict[str, str] = {}
"""Where each named format is defined."""


def _named(name: str, text: str, source: str) -> Format:
    SOURCES[name] = source
    return Format.parse(text)


_ONNX = "ONNX QuantizeLinear"
int2 = _named("int2", "int2", _ONNX)
int3 = _named("int3", "int3", "as int4, of 3 bits")
int4 = _named("int4", "int4", _ONNX)
int5 = _named("int5", "int5", "as int8, of 5 bits")
int6 = _named("int6", "int6", "as int8, of 6 bits")
int7 = _named("int7", "int7", "int8 without overflow in 16-bit pairs: x86 vpmaddubsw")
int8 = _named("int8", "int8", _ONNX)
int16 = _named("int16", "int16", _ONNX)
uint4 = _named("uint4", "uint4", _ONNX)
uint8 = _named("uint8", "uint8", _ONNX)
uint16 = _named("uint16", "uint16", _ONNX)
ternary = _named("ternary", "int2n", "TWN, arXiv 1605.04711")

float32 = _named("float32", "float32", "IEEE 754-2019, 3.6")
tf32 = _named("tf32", "tf32", "NVIDIA A100 architecture white paper")
float16 = _named("float16", "float16", "IEEE 754-2019, 3.6")
bfloat16 = _named("bfloat16", "bfloat16", "RISC-V BF16 extensions, 1")
e5m2 = _named("e5m2", "e5m2", "OCP OFP8 1.0, table 1")
e4m3 = _named("e4m3", "e4m3", "OCP OFP8 1.0, table 1")
e5m2fnuz = _named("e5m2fnuz", "e5m2fnuz", "arXiv 2206.02915")
e4m3fnuz = _named("e4m3fnuz", "e4m3fnuz", "arXiv 2206.02915")
e3m4 = _named("e3m4", "e3m4", "ml_dtypes float8_e3m4")
e3m2 = _named("e3m2", "e3m2", "OCP MX 1.0, 5.3.2")
e2m3 = _named("e2m3", "e2m3", "OCP MX 1.0, 5.3.2")
e2m1 = _named("e2m1", "e2m1", "OCP MX 1.0, 5.3.3")
fp8 = _named("fp8", "e4m3*float32", "OCP OFP8 1.0, scaled")
fp8_e5m2 = _named("fp8_e5m2", "e5m2*float32", "OCP OFP8 1.0, scaled")

mxfp8 = _named("mxfp8", "e4m3@g32*e8m0~floor", "OCP MX 1.0, table 1")
mxfp8_e5m2 = _named("mxfp8_e5m2", "e5m2@g32*e8m0~floor", "OCP MX 1.0, table 1")
mxfp6 = _named("mxfp6", "e2m3@g32*e8m0~floor", "OCP MX 1.0, table 1")
mxfp6_e3m2 = _named("mxfp6_e3m2", "e3m2@g32*e8m0~floor", "OCP MX 1.0, table 1")
mxfp4 = _named("mxfp4", "e2m1@g32*e8m0~floor", "OCP MX 1.0, table 1")
mxint8 = _named("mxint8", "q1.6@g32*e8m0~floor", "OCP MX 1.0, table 1")
nvfp4 = _named("nvfp4", "e2m1@g16*(e4m3*float32)", "NVIDIA, Pretraining LLMs with NVFP4, arXiv 2509.25149")
nf4 = _named("nf4", "nf4", "QLoRA, arXiv 2305.14314, appendix E")

FORMATS = Registry("format", {name: f"planish.formats.named:{name}" for name in SOURCES})


def fixed(whole: int, frac: int, signed: bool = True, narrow: bool = False) -> Format:
    """Fixed point without a scale: `whole` bits before the binary point, `frac` after it, and a sign if `signed`."""
    return Format(Int(whole + frac + signed, frac, signed, narrow), scale=None)


def get(format: Format | str) -> Format:
    """A format from its name ("mxfp4"), its text form ("int4@g32*float16"), or itself.

    Raises:
        UnknownName: A plain word that is neither; names the nearest.
        OptionError: A text form with a part that cannot be read.
    """
    if isinstance(format, Format):
        return format
    if not isinstance(format, str):
        raise OptionError(f"a format is a Format, a name or a text, not {type(format).__name__}", "format")
    if format in FORMATS:
        return FORMATS[format]
    try:
        return Format.parse(format)
    except OptionError as error:
        if format.replace("_", "").isalnum() and error.where.startswith("element"):
            raise UnknownName("format", format, FORMATS) from None
        raise
