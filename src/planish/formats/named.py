"""The formats that have a name, one line each: name, text form, source.

Each is also an attribute of `planish.formats`: `from planish.formats import int8, mxfp4`.
"""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from functools import cache

from planish.errors import OptionError, UnknownName
from planish.formats import text as text_form
from planish.formats.format import Format
from planish.formats.integer import Int
from planish.registry import Registry

_ONNX, _MX, _OFP8 = "ONNX QuantizeLinear", "OCP MX 1.0, table 1", "OCP OFP8 1.0, table 1"
_GGML, _POSIT = "ggml-common.h, ", "Standard for Posit Arithmetic (2022), 3.4"
_POWERS = (2, 4, 8, 16)
_MSFP = "Microsoft floating point, NeurIPS 2020"
_BM = "Block Minifloat, ICLR 2021"

NAMED: dict[str, tuple[str, str]] = {
    # integers: symmetric, and affine where unsigned
    **{f"int{n}": (f"int{n}", _ONNX if n in _POWERS else f"as int8, of {n} bits") for n in range(2, 17)},
    "int7": ("int7", "int8 without overflow in 16-bit pairs: x86 vpmaddubsw"),
    **{f"uint{n}": (f"uint{n}", _ONNX if n in _POWERS else f"as uint8, of {n} bits") for n in range(2, 17)},
    # one and two bits
    "binary": ("sign~away~mean", "XNOR-Net, arXiv 1603.05279, eq. 6"),
    "binary2": ("sign~away~mean&sign~away~mean", "HORQ, arXiv 1708.08687, of order 2"),
    "binary3": (
        "sign~away~mean&sign~away~mean&sign~away~mean",
        "HORQ, arXiv 1708.08687, of order 3",
    ),
    "ternary": ("int2n~twn", "Ternary Weight Networks, arXiv 1605.04711, eq. 6"),
    "bitnet": ("int2n~mean", "BitNet b1.58, arXiv 2402.17764, eq. 1"),
    # floating point
    "float32": ("float32", "IEEE 754-2019, 3.6"),
    "tf32": ("tf32", "NVIDIA A100 architecture white paper"),
    "float16": ("float16", "IEEE 754-2019, 3.6"),
    "bfloat16": ("bfloat16", "RISC-V BF16 extensions, 1"),
    "bfloat16x2": ("bfloat16&bfloat16", "arXiv 1904.06376, of 2 terms"),
    "bfloat16x3": ("bfloat16&bfloat16&bfloat16", "arXiv 1904.06376, of 3 terms"),
    "e5m2": ("e5m2", _OFP8),
    "e4m3": ("e4m3", _OFP8),
    "e4m3ieee": ("e4m3ieee", "ml_dtypes float8_e4m3; IEEE 754-2019, 3.4"),
    "e3m4": ("e3m4", "ml_dtypes float8_e3m4; IEEE 754-2019, 3.4"),
    "e5m2fnuz": ("e5m2fnuz", "arXiv 2206.02915"),
    "e4m3fnuz": ("e4m3fnuz", "arXiv 2206.02915"),
    "e4m3b11fnuz": ("e4m3b11fnuz", "ml_dtypes float8_e4m3b11fnuz"),
    "e3m2": ("e3m2", "OCP MX 1.0, 5.3.2"),
    "e2m3": ("e2m3", "OCP MX 1.0, 5.3.2"),
    "e2m1": ("e2m1", "OCP MX 1.0, 5.3.3"),
    "fp8": ("e4m3*float32", "OCP OFP8 1.0, scaled"),
    "fp8_e5m2": ("e5m2*float32", "OCP OFP8 1.0, scaled"),
    "fp6": ("e2m3*float32", "FP6-LLM, arXiv 2401.14112, with 3 mantissa bits"),
    "fp6_e3m2": ("e3m2*float32", "FP6-LLM, arXiv 2401.14112"),
    "fp4": ("e2m1*float32", "LLM-FP4, arXiv 2310.16836"),
    # one scale for a block
    "mxfp8": ("e4m3@g32*e8m0~floor", _MX),
    "mxfp8_e5m2": ("e5m2@g32*e8m0~floor", _MX),
    "mxfp6": ("e2m3@g32*e8m0~floor", _MX),
    "mxfp6_e3m2": ("e3m2@g32*e8m0~floor", _MX),
    "mxfp4": ("e2m1@g32*e8m0~floor", _MX),
    "mxint8": ("q1.6@g32*e8m0~floor", _MX),
    "nvfp4": ("e2m1@g16*(e4m3*float32)", "NVIDIA, Pretraining LLMs with NVFP4, arXiv 2509.25149"),
    "bfp8": ("q1.6@g16*e8m0~floor", "Wilkinson 1963; as MXINT8, in groups of 16"),
    "bfp6": ("q1.4@g16*e8m0~floor", "as bfp8, of 6 bits"),
    "bfp4": ("q1.2@g16*e8m0~floor", "as bfp8, of 4 bits"),
    "msfp16": ("q1.6n@g16*e8m0~floor", _MSFP),
    "msfp14": ("q1.4n@g16*e8m0~floor", _MSFP),
    "msfp12": ("q1.2n@g16*e8m0~floor", _MSFP),
    "bm8": ("e2m5finite@tile48x48*e8m0~floor", _BM),
    "bm8_e4m3": ("e4m3finite@tile48x48*e8m0~floor", _BM),
    "bm6": ("e2m3@tile48x48*e8m0~floor", _BM),
    "bm4": ("e2m1@tile48x48*e8m0~floor", _BM),
    # logarithmic
    "log4": ("se3m0z*float32~log", "LogQuant, arXiv 1603.01025"),
    "log5": ("se4m0z*float32~log", "LogQuant, arXiv 1603.01025"),
    "blog4": ("se3m0z@g16*e8m0~floor~log", f"{_BM}, block log"),
    "blog6": ("se5m0z@g16*e8m0~floor~log", f"{_BM}, block log"),
    # tables
    "nf4": ("nf4", "QLoRA, arXiv 2305.14314, appendix E"),
    "nf4_double": ("nf4@g64*(e4m3@g256*float32)", "QLoRA, arXiv 2305.14314, section 3"),
    "af4": ("af4", "arXiv 2306.06965; made for groups of 64"),
    "lut2": ("lut2", "SqueezeLLM, arXiv 2306.07629, section 4.1, as lut4"),
    "lut3": ("lut3", "SqueezeLLM, arXiv 2306.07629, section 4.1"),
    "lut4": ("lut4", "SqueezeLLM, arXiv 2306.07629, section 4.1"),
    "lut8": ("lut8", "Deep Compression, arXiv 1510.00149, section 3"),
    "posit8": ("posit8", _POSIT),
    "posit6": ("posit6", _POSIT),
    "posit4": ("posit4", _POSIT),
    **{f"posit{n}es{es}": (f"posit{n}es{es}", f"{_POSIT}, with es = {es}") for n in (8, 6) for es in (0, 1)},
    # groups of groups: blocks as in ggml, along the last axis
    "q8_0": ("int8n@g32*float16~away", f"{_GGML}block_q8_0"),
    "q4_0": ("int4@g32*float16~peak", f"{_GGML}block_q4_0"),
    "q4_1": ("uint4@g32*float16-(float16)", f"{_GGML}block_q4_1"),
    "q5_0": ("int5@g32*float16~peak", f"{_GGML}block_q5_0"),
    "q5_1": ("uint5@g32*float16-(float16)", f"{_GGML}block_q5_1"),
    "q2_k": ("uint2@g16*(uint4-zp@g16*float16)-(uint4-zp@g16*float16)", f"{_GGML}block_q2_K"),
    "q3_k": ("int3@g16*(int6@g16*float16~peak)~peak", f"{_GGML}block_q3_K"),
    "q4_k": ("uint4@g32*(uint6-zp@g8*float16)-(uint6-zp@g8*float16)", f"{_GGML}block_q4_K"),
    "q5_k": ("uint5@g32*(uint6-zp@g8*float16)-(uint6-zp@g8*float16)", f"{_GGML}block_q5_K"),
    "q6_k": ("int6@g16*(int8@g16*float16~peak)~peak", f"{_GGML}block_q6_K"),
}
"""The text form and the source of each."""

SOURCES: dict[str, str] = {name: source for name, (_, source) in NAMED.items()}
"""Where each named format is defined."""

FORMATS = Registry("format", {name: f"planish.formats.named:{name}" for name in NAMED})


@cache
def __getattr__(name: str) -> Format:
    if name not in NAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return Format.parse(NAMED[name][0])


def fixed(whole: int, frac: int, signed: bool = True, narrow: bool = False) -> Format:
    """Fixed point without a scale: `whole` bits before the binary point, `frac` after it, and a sign if `signed`."""
    return Format(Int(whole + frac + signed, frac, signed, narrow), scale=None)


def get(format: Format | str) -> Format:
    """A format from its name, its text form, a name with changed fields ("mxfp4@g16~mse"), or itself.

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
        return text_form.read(format, Format, FORMATS)
    except OptionError as error:
        if error.where.startswith("element") and text_form.head(format) in error.what.split("'"):
            head = text_form.head(format)
            if head.replace("_", "").isalnum():
                raise UnknownName("format", head, FORMATS, error.where) from None
        raise
