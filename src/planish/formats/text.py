"""The text form of a format, as graphs print it and recipes keep it.

```
format  := element [ "+zp" [":" int] | "-zp" ] [ "@" block ] [ "*" scale ] { "~" option }
element := "int8" | "int8n" (narrow) | "uint4" | "q3.4" | "uq4.4" | "q3.4n"             Int
         | "e4m3" [ "b" bias ] [ "ieee" | "fn" | "fnuz" | "finite" ]                    Float
         | "float32" | "float16" | "bfloat16" | "tf32"                                  Float
         | [ "s" ] "e8m0" [ "b" bias ] [ "z" ] [ "n" | "x" ]                            Pow2: sign, zero, NaN or none
         | "nf4" | "{" number { "," number } "}"                                        Codebook
block   := "tensor" | "token" | "channel" axis | "g" size [ "axis" axis ] | "tile" size { "x" size }
         | "[" [ axis ":" ( size | "all" ) { "," ... } ] "|" ( "whole" | "one" ) "]"   "!" after it: not ragged
scale   := "none" | element | "(" format ")"
option  := "away" | "down" | "up" | "stochastic"     rounding       (else nearest, ties to even)
         | "infinity" | "saturate"                   overflow
         | "floor" | "mse"                           scale rule     (else absmax)
         | "dynamic"                                 the scale is computed on the fly
```
What is left out is what the element usually has: an integer a float32 scale, and a zero point of its own type if it is
unsigned; a float of more than 8 bits no scale, and infinity on overflow; a smaller one or a power of two no scale.
A float without a suffix has the specials that OCP gives it: e4m3 is `fn`, 6 bits and fewer are `finite`, others `ieee`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast, get_args

from planish.errors import OptionError
from planish.formats.block import TENSOR, TOKEN, Block, Others, channel, group, tile
from planish.formats.codebook import NF4, Codebook
from planish.formats.element import Element, Overflow
from planish.formats.floating import BFLOAT16, FLOAT16, FLOAT32, TF32, Float, Specials
from planish.formats.integer import Int
from planish.formats.pow2 import Pow2
from planish.formats.rounding import Rounding
from planish.formats.scaling import Rule

if TYPE_CHECKING:
    from planish.formats.format import Format

F = TypeVar("F")


class _Usual(NamedTuple):
    """What is left out of the text of a format with some element."""

    scaled: bool
    zero_point: Int | None
    overflow: Overflow


_SPELLED: dict[str, Element] = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16, "tf32": TF32, "nf4": NF4}
_NAMES = {element: name for name, element in _SPELLED.items()}
_INT = re.compile(r"(u?)int(\d+)(n?)")
_FIXED = re.compile(r"(u?)q(-?\d+)\.(-?\d+)(n?)")
_FLOAT = re.compile(rf"e(\d+)m([1-9]\d*)(?:b(-?\d+))?({'|'.join(get_args(Specials))})?")
_POW2 = re.compile(r"(s?)e(\d+)m0(?:b(-?\d+))?(z?)([nx]?)")
_CODEBOOK = re.compile(r"\{([^{}]*)\}")
_OPTIONS = {"rounding": get_args(Rounding), "overflow": get_args(Overflow), "rule": get_args(Rule)}
_PARTS = re.compile(
    r"(?P<element>\{[^{}]*\}|[a-z][a-z0-9.\-]*?)"
    r"(?P<zero>[+-]zp(?::[a-z0-9]+)?)?(?:@(?P<block>[^@*~+()]+))?(?:\*(?P<scale>\(.+\)|[^()@*~+]+))?(?P<options>(?:~[a-z]+)*)"
)


def write(format_: Format) -> str:
    """The text that `read` turns into an equal format."""
    usual = _usual(format_.element)
    parts = [write_element(format_.element)]
    if format_.zero_point != usual.zero_point:
        parts.append("-zp" if format_.zero_point is None else "+zp")
        if format_.zero_point not in (None, format_.element):
            parts.append(":" + write_element(format_.zero_point))
    if format_.block is not None:
        parts.append("@" + write_block(format_.block))
    scale = "none" if format_.scale is None else write(format_.scale)
    if scale != ("float32" if usual.scaled else "none"):
        parts.append(f"*({scale})" if re.search(r"[@*~+()]|-zp", scale) else f"*{scale}")
    options = (("rounding", "even"), ("overflow", usual.overflow), ("rule", "absmax"))
    parts += [f"~{value}" for name, left_out in options if (value := getattr(format_, name)) != left_out]
    return "".join(parts) + "~dynamic" * format_.is_dynamic


def read(text: str, make: Callable[..., F]) -> F:
    """The format that a text stands for; `make` builds it from its fields.

    Raises:
        OptionError: The text is not one; names the part at fault and what it accepts.
    """
    match = _PARTS.fullmatch(text)
    if match is None:
        raise OptionError(
            f"{text!r} is not a format", hint="element[+zp][@block][*scale][~option], such as int4@g32*float16~mse"
        )
    element = read_element(match["element"], text)
    usual = _usual(element)
    fields: dict[str, object] = {
        "element": element,
        "block": match["block"] and read_block(match["block"], text),
        "scale": read("float32", make) if usual.scaled else None,
        "zero_point": usual.zero_point,
        "overflow": usual.overflow,
    }
    if zero := match["zero"]:
        fields["zero_point"] = None if zero == "-zp" else read_element(zero[4:], text) if zero[4:] else element
        if zero.startswith("-zp:"):
            raise OptionError(f"{zero!r} takes a zero point away and cannot have a type", _at(text, "zero point"))
    if scale := match["scale"]:
        inner = scale[1:-1] if scale.startswith("(") else scale
        fields["scale"] = None if inner == "none" else read(inner, make)
    seen: set[str] = set()
    for option in filter(None, match["options"].split("~")):
        field = "is_dynamic" if option == "dynamic" else next((f for f, v in _OPTIONS.items() if option in v), None)
        if field is None or field in seen:
            accepted = ", ".join([*(v for values in _OPTIONS.values() for v in values), "dynamic"])
            problem = "is not an option" if field is None else f"sets {field} a second time"
            raise OptionError(f"~{option} {problem}", _at(text, "option"), f"one of {accepted}")
        seen.add(field)
        fields[field] = option if field != "is_dynamic" else True
    return make(**fields)


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
        case Codebook(values):
            return "{" + ",".join(map(repr, values)) + "}"
        case _:
            raise OptionError(f"{type(element).__name__} has no text form", "element", "Int, Float, Pow2 or Codebook")


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
    if m := _CODEBOOK.fullmatch(text):
        try:
            return Codebook(tuple(map(float, m[1].split(","))))
        except ValueError as error:
            raise OptionError(f"a codebook lists numbers: {error}", _at(whole or text, "element")) from None
    accepted = "int8, int8n, uint4, q3.4, uq4.4, e4m3, e5m2fnuz, e8m0, float16, bfloat16, nf4, {-1.0,0.0,1.0}"
    raise OptionError(f"{text!r} is not a number element", _at(whole, "element"), f"one like {accepted}")


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
        raise OptionError(f"{text!r} is not a block", _at(whole, "block"), accepted)
    return Block(block.sizes, block.others, ragged)


def _usual(element: Element) -> _Usual:
    integer = element if isinstance(element, Int) and not element.frac else None
    wide = isinstance(element, Float) and element.bits > 8 and element.has_nan
    return _Usual(
        scaled=integer is not None or isinstance(element, Codebook),
        zero_point=None if integer is None or integer.signed else integer,
        overflow="infinity" if wide else "saturate",
    )


def _usual_specials(exponent: int, mantissa: int) -> Specials:
    if (exponent, mantissa) == (4, 3):
        return "fn"
    return "finite" if 1 + exponent + mantissa <= 6 else "ieee"


def _at(text: str, field: str) -> str:
    return f"{field} of {text!r}" if text else field
