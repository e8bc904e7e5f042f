"""The text forms of elements and blocks, the words of which `planish.formats.text` makes formats."""

from __future__ import annotations

import re
from typing import cast, get_args

from planish.errors import OptionError
from planish.formats.block import TENSOR, TOKEN, Block, Others, channel, group, tile
from planish.formats.codebook import AF4, NF4, SIGN, Codebook
from planish.formats.element import Element
from planish.formats.floating import BFLOAT16, FLOAT16, FLOAT32, TF32, Float, Specials
from planish.formats.integer import Int
from planish.formats.lut import Lut
from planish.formats.posit import Posit
from planish.formats.pow2 import Pow2

_SPELLED: dict[str, Element] = {
    "float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16, "tf32": TF32, "nf4": NF4, "af4": AF4, "sign": SIGN,
}  # fmt: skip
_NAMES = {element: name for name, element in _SPELLED.items()}
_INT = re.compile(r"(u?)int(\d+)(n?)")
_FIXED = re.compile(r"(u?)q(-?\d+)\.(-?\d+)(n?)")
_FLOAT = re.compile(rf"e(\d+)m([1-9]\d*)(?:b(-?\d+))?({'|'.join(get_args(Specials))})?")
_POW2 = re.compile(r"(s?)e(\d+)m0(?:b(-?\d+))?(z?)([nx]?)")
_POSIT = re.compile(r"posit(\d+)(?:es(\d+))?")
_LUT = re.compile(r"lut(\d+)")
_CODEBOOK = re.compile(r"\{([^{}]*)\}")


def write_element(element: Element) -> str:
    """The text that `read_element` turns into an equal element."""
    if element in _NAMES:
        return _NAMES[element]
    match element:
        case Int(bits, frac, signed, narrow):
            name = f"q{bits - frac - signed}.{frac}" if frac else f"int{bits}"
            return "u" * (not signed) + name + "n" * narrow
        case Float(exponent, mantissa, bias, specials):
            usual = _usual_specials(exponent, mantissa)
            same = bias == Float(exponent, mantissa, specials=specials).bias
            return f"e{exponent}m{mantissa}" + ("" if same else f"b{bias}") + (specials if specials != usual else "")
        case Pow2(exponent, bias, signed, zero, nan):
            same = bias == 2 ** (exponent - 1) - 1
            tail = "z" * zero + ("" if nan == (not zero) else "n" if nan else "x")
            return "s" * signed + f"e{exponent}m0" + ("" if same else f"b{bias}") + tail
        case Posit(bits, es):
            return f"posit{bits}" + (f"es{es}" if es != 2 else "")
        case Lut(bits):
            return f"lut{bits}"
        case Codebook(values):
            return "{" + ",".join(map(repr, values)) + "}"
        case _:
            accepted = "Int, Float, Pow2, Posit, Codebook or Lut"
            raise OptionError(f"{type(element).__name__} has no text form", "element", accepted)


def read_element(text: str, whole: str = "") -> Element:
    """The element that a text stands for."""
    if text in _SPELLED:
        return _SPELLED[text]
    if m := _INT.fullmatch(text):
        return Int(int(m[2]), 0, not m[1], bool(m[3]))
    if m := _FIXED.fullmatch(text):
        whole_bits, frac, signed = int(m[2]), int(m[3]), not m[1]
        return Int(whole_bits + frac + signed, frac, signed, bool(m[4]))
    if m := _FLOAT.fullmatch(text):
        e, b = int(m[1]), int(m[2])
        specials = cast(Specials, m[4]) if m[4] else _usual_specials(e, b)
        return Float(e, b, specials=specials) if m[3] is None else Float(e, b, int(m[3]), specials)
    if m := _POW2.fullmatch(text):
        zero = bool(m[4])
        nan = m[5] == "n" if m[5] else not zero
        e, signed = int(m[2]), bool(m[1])
        return Pow2(e, signed=signed, zero=zero, nan=nan) if m[3] is None else Pow2(e, int(m[3]), signed, zero, nan)
    if m := _POSIT.fullmatch(text):
        return Posit(int(m[1]), int(m[2]) if m[2] else 2)
    if m := _LUT.fullmatch(text):
        return Lut(int(m[1]))
    if m := _CODEBOOK.fullmatch(text):
        try:
            return Codebook(tuple(map(float, m[1].split(","))))
        except ValueError as error:
            raise OptionError(f"a codebook lists numbers: {error}", at(whole or text, "element")) from None
    accepted = "int8, int8n, uint4, q3.4, uq4.4, e4m3, e5m2fnuz, e8m0, float16, nf4, posit8, lut4, {-1.0,0.0,1.0}"
    raise OptionError(f"{text!r} is not a number element", at(whole, "element"), f"one like {accepted}")


def write_block(block: Block) -> str:
    """The text that `read_block` turns into an equal block."""
    end = "!" if block.ragged == "refuse" else ""
    bare = Block(block.sizes, block.others)
    sizes = [size for _, size in block.sizes]
    if bare == TENSOR:
        return "tensor" + end
    if bare == TOKEN:
        return "token" + end
    if len(sizes) == 1 and (axis := block.sizes[0][0]) is not None:
        if bare == channel(axis):
            return f"channel{axis}{end}"
        if sizes[0] is not None and bare == group(sizes[0], axis):
            return f"g{sizes[0]}{'' if axis == -1 else f'axis{axis}'}{end}"
    if len(sizes) > 1 and None not in sizes and bare == tile(*filter(None, sizes)):
        return "tile" + "x".join(map(str, sizes)) + end
    inner = ",".join(f"{axis}:{'all' if size is None else size}" for axis, size in block.sizes)
    return f"[{inner}|{block.others}]{end}"


def read_block(text: str, whole: str = "") -> Block:
    """The block that a text stands for."""
    ragged = "refuse" if text.endswith("!") else "pad"
    body = text.removesuffix("!")
    if body in ("tensor", "token"):
        block = TENSOR if body == "tensor" else TOKEN
    elif m := re.fullmatch(r"channel(-?\d+)", body):
        block = channel(int(m[1]))
    elif m := re.fullmatch(r"g(\d+)(?:axis(-?\d+))?", body):
        block = group(int(m[1]), -1 if m[2] is None else int(m[2]))
    elif m := re.fullmatch(r"tile(\d+(?:x\d+)+)", body):
        block = tile(*map(int, m[1].split("x")))
    elif m := re.fullmatch(r"\[((?:-?\d+:(?:\d+|all)(?:,(?=[-\d])|(?=\|)))*)\|(whole|one)\]", body):
        pairs = [pair.split(":") for pair in m[1].split(",") if pair]
        block = Block(tuple((int(axis), None if n == "all" else int(n)) for axis, n in pairs), cast(Others, m[2]))
    else:
        accepted = "tensor, token, channel0, g32, g32axis0, tile16x16 or [0:1,-1:32|one]"
        raise OptionError(f"{text!r} is not a block", at(whole, "block"), accepted)
    return Block(block.sizes, block.others, ragged)


def at(text: str, field: str) -> str:
    """Where a field stands: the `where` of an error."""
    return f"{field} of {text!r}" if text else field


def _usual_specials(exponent: int, mantissa: int) -> Specials:
    if (exponent, mantissa) == (4, 3):
        return "fn"
    return "finite" if 1 + exponent + mantissa <= 6 else "ieee"
