"""The text form of a format, as graphs print it and recipes keep it.

```
format  := level { "&" level }                       each level after the first holds what is left: the residual
level   := element [ "+zp" [":" int] | "-zp" ] [ "@" block ] [ "*" scale ] [ "-(" offset ")" ] { "~" option }
element := "int8" | "int8n" (narrow) | "uint4" | "q3.4" | "uq4.4" | "q3.4n"             Int
         | "e4m3" [ "b" bias ] [ "ieee" | "fn" | "fnuz" | "finite" ]                    Float
         | "float32" | "float16" | "bfloat16" | "tf32"                                  Float
         | [ "s" ] "e8m0" [ "b" bias ] [ "z" ] [ "n" | "x" ]                            Pow2: sign, zero, NaN or none
         | "posit8" [ "es" bits ]                                                       Posit
         | "nf4" | "af4" | "sign" | "{" number { "," number } "}"                       Codebook
         | "lut4"                                                                       Lut: a learned codebook
block   := "tensor" | "token" | "channel" axis | "g" size [ "axis" axis ] | "tile" size { "x" size }
         | "[" [ axis ":" ( size | "all" ) { "," ... } ] "|" ( "whole" | "one" ) "]"   "!" after it: not ragged
scale   := "none" | element | "(" format ")"
offset  := format
option  := "even" | "away" | "halfup" | "down" | "up" | "stochastic" | "log"      rounding     (else even)
         | "infinity" | "saturate"                                                overflow
         | "absmax" | "floor" | "ceil" | "peak" | "mean" | "twn" | "mse"          scale rule   (else absmax; lut: mse)
         | "nan-keep" | "nan-zero" | "nan-max"                                    NaN
         | "dynamic"                                                              the scale is computed on the fly
```
What is left out is what the element usually has: an integer a float32 scale, and a zero point of its own type if it is
unsigned; a codebook a float32 scale; a learned codebook float32 numbers, whose format stands where others have the
scale's; a float of more than 8 bits no scale, and infinity on overflow; other elements no
scale; NaN stays where the element has it and becomes zero otherwise.
A float without a suffix has the specials that OCP gives it: e4m3 is `fn`, 6 bits and fewer are `finite`, others `ieee`.
In `planish.formats.get` a name may stand in place of the element, and what follows changes its fields: `mxfp4@g16~mse`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

from planish.errors import OptionError
from planish.formats.codebook import Codebook
from planish.formats.element import Element, Nan, Overflow
from planish.formats.floating import Float
from planish.formats.integer import Int
from planish.formats.lut import Lut
from planish.formats.rounding import Rounding
from planish.formats.scaling import Rule
from planish.formats.spelling import at, read_block, read_element, write_block, write_element

if TYPE_CHECKING:
    from planish.formats.format import Format

F = TypeVar("F")


class _Usual(NamedTuple):
    """What is left out of the text of a format with some element."""

    scaled: bool
    zero_point: Int | None
    overflow: Overflow
    rule: Rule


_OPTIONS: dict[str, tuple[str, object]] = {
    **{value: ("rounding", value) for value in get_args(Rounding)},
    **{value: ("overflow", value) for value in get_args(Overflow)},
    **{value: ("rule", value) for value in get_args(Rule)},
    **{f"nan-{value}": ("nan", value) for value in get_args(Nan)},
    "dynamic": ("is_dynamic", True),
}
_MARK = re.compile(r"[+@*~&]|-(?=zp|\()")
_ALPHABET = re.compile(r"[\w.,:!|+\-@*~&(){}\[\]]+", re.ASCII)


def write(format_: Format) -> str:
    """The text that `read` turns into an equal format."""
    usual = _usual(format_.element)
    parts = [write_element(format_.element)]
    if format_.zero_point != (None if format_.offset else usual.zero_point):
        parts.append("-zp" if format_.zero_point is None else "+zp")
        if format_.zero_point not in (None, format_.element):
            parts.append(":" + write_element(format_.zero_point))
    if format_.block is not None:
        parts.append("@" + write_block(format_.block))
    scale = "none" if format_.scale is None else write(format_.scale)
    if scale != ("float32" if usual.scaled else "none"):
        parts.append(f"*({scale})" if re.search(r"[@*~+()&]|-zp", scale) else f"*{scale}")
    if format_.offset is not None:
        parts.append(f"-({write(format_.offset)})")
    options = (("rounding", "even"), ("overflow", usual.overflow), ("rule", usual.rule))
    parts += [f"~{value}" for name, left_out in options if (value := getattr(format_, name)) != left_out]
    parts += [f"~nan-{format_.nan}"] * (format_.nan != format_.element.nans[0]) + ["~dynamic"] * format_.is_dynamic
    return "".join(parts) + (f"&{write(format_.residual)}" if format_.residual else "")


def read(text: str, make: Callable[..., F], names: Mapping[str, Format] | None = None) -> F:
    """The format that a text stands for; `make` builds it from its fields.

    Args:
        text: As above.
        make: `Format`.
        names: What may stand in place of an element; what follows changes the fields that it names.

    Raises:
        OptionError: The text is not one; names the part at fault and what it accepts.
    """
    (_, head), *pieces = _pieces(text)
    given: dict[str, Any] = {}
    for mark, body in pieces:
        field, value = _field(mark, body, text, lambda inner: read(inner, make, names))
        if field in given:
            part = "option" if mark == "~" else field.replace("_", " ")
            raise OptionError(f"{mark}{body} sets {field} a second time", at(text, part))
        given[field] = value
    if names is not None and head in names:
        base = names[head]
        start = {field.name: getattr(base, field.name) for field in fields_of(base)}
        if "block" in given and base.residual is not None:
            start["residual"] = base.residual.at(given["block"])
    else:
        element = read_element(head, text)
        usual = _usual(element)
        scale = read("float32", make) if usual.scaled else None
        start = {"element": element, "scale": scale} | usual._asdict()
        del start["scaled"]
    if "offset" in given:
        start["zero_point"] = None
    if given.get("zero_point") is _OWN:
        given["zero_point"] = start["element"]
    return make(**start | given)


def head(text: str) -> str:
    """What a text begins with: a name, or an element."""
    return _pieces(text)[0][1]


_OWN = object()


def _field(mark: str, body: str, text: str, inner: Callable[[str], F]) -> tuple[str, object]:
    """The field that one part of a text sets, and its value."""
    match mark:
        case "@":
            return "block", read_block(body, text)
        case "*":
            scale = body[1:-1] if body.startswith("(") and body.endswith(")") else body
            return "scale", None if scale == "none" else inner(scale)
        case "&":
            return "residual", inner(body)
        case "~" if body in _OPTIONS:
            return _OPTIONS[body]
        case "~":
            raise OptionError(f"~{body} is not an option", at(text, "option"), f"one of {', '.join(_OPTIONS)}")
        case "-" if body.startswith("("):
            if not body.endswith(")"):
                raise OptionError(f"{body!r} is not an offset", at(text, "offset"), "a format: -(float16)")
            return "offset", inner(body[1:-1])
    if body == "zp":
        return "zero_point", None if mark == "-" else _OWN
    if mark == "+" and body.startswith("zp:"):
        return "zero_point", read_element(body[3:], text)
    raise OptionError(f"{mark}{body} is not a zero point", at(text, "zero point"), "+zp, +zp:int32 or -zp")


def _pieces(text: str) -> list[tuple[str, str]]:
    """The parts of a text outside brackets, each with the mark before it; all that follows "&" is one part."""
    parts, depth = [["", ""]], 0
    for place, char in enumerate(text):
        if depth == 0 and _MARK.match(text, place):
            parts.append([char, ""])
            if char == "&":
                parts[-1][1] = text[place + 1 :]
                break
            continue
        parts[-1][1] += char
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            break
    if depth or not parts[0][1] or not _ALPHABET.fullmatch(text):
        accepted = "element[+zp][@block][*scale][-(offset)][~option][&residual], such as int4@g32*float16~mse"
        raise OptionError(f"{text!r} is not a format", hint=accepted)
    return [(mark, body) for mark, body in parts]


def _usual(element: Element) -> _Usual:
    integer = element if isinstance(element, Int) and not element.frac else None
    wide = isinstance(element, Float) and element.bits > 8 and element.has_nan
    return _Usual(
        scaled=integer is not None or isinstance(element, Codebook | Lut),
        zero_point=None if integer is None or integer.signed else integer,
        overflow="infinity" if wide else "saturate",
        rule="mse" if isinstance(element, Lut) else "absmax",
    )
