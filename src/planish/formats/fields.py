"""Which fields of a format go together."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import TYPE_CHECKING, get_args

from planish.errors import OptionError
from planish.formats.block import Block
from planish.formats.element import Element
from planish.formats.integer import Int
from planish.formats.lut import Lut
from planish.formats.scaling import Rule

if TYPE_CHECKING:
    from planish.formats.format import Format


def check_types(format: Format, kind: type[Format]) -> None:
    """Refuse fields of a wrong type; `kind` is `Format`.

    Raises:
        OptionError: Names the field, and what it accepts.
    """
    _is("element", format.element, Element, "Int, Float, Pow2, Posit, Codebook or Lut")
    _is("block", format.block, Block | None, "channel(0), group(32), tile(16, 16), TENSOR or TOKEN")
    _is("zero_point", format.zero_point, Int | None, "Int(8, signed=False)")
    for name in ("scale", "offset", "residual"):
        _is(name, getattr(format, name), kind | None, f"a Format: get({getattr(format, name)!r})")


def check(format: Format) -> None:
    """Refuse fields that contradict each other.

    Raises:
        OptionError: Names the field, and what it accepts.
    """
    _one_of("rounding", format.rounding, format.element.roundings)
    _one_of("overflow", format.overflow, format.element.overflows)
    _one_of("nan", format.nan, format.element.nans)
    _one_of("rule", format.rule, get_args(Rule), "")
    if isinstance(format.element, Lut):
        _codebook(format)
    if format.scale is None:
        _without_scale(format)
    if format.zero_point is not None:
        _zero_point(format)
    if format.offset is not None:
        _offset(format)
    if format.rule == "peak" and format.element.minimum >= 0:
        raise OptionError("the peak rule needs negative numbers", "rule", "'absmax'")
    for name in ("scale", "offset", "residual"):
        inner: Format | None = getattr(format, name)
        if inner is not None and inner.is_dynamic:
            raise OptionError(f"{_A[name]} cannot be dynamic by itself", name, "make the outer format dynamic")
        if inner is not None and isinstance(inner.element, Lut) and name != "residual":
            raise OptionError(f"{_A[name]} has no learned codebook", name, "a float or an integer, such as float16")
        if inner is not None and inner.residual is not None and name != "residual":
            raise OptionError(f"{_A[name]} has no residual", name, "one level, such as float16")
    if format.bits > 62:
        raise OptionError(f"codes have at most 62 bits, not {format.bits}", "residual", "fewer levels")


_A = {"scale": "a scale", "offset": "an offset", "residual": "a residual"}


def _codebook(format: Format) -> None:
    if format.scale is None or format.scale.element.minimum >= 0:
        raise OptionError("a learned codebook needs a format of its numbers, of both signs", "scale", "float32")
    if format.offset is not None:
        raise OptionError("a learned codebook has no offset: its numbers are free", "offset", "offset=None")
    if format.rule not in ("absmax", "mse"):
        raise OptionError(f"the {format.rule} rule is of scales, not of codebooks", "rule", "'absmax' or 'mse'")


def _without_scale(format: Format) -> None:
    given = {
        "rule": format.rule != "absmax",
        "is_dynamic": format.is_dynamic and not format.levels,
        "zero_point": format.zero_point,
        "offset": format.offset,
        "block": format.block,
    }
    wrong = next((name for name, value in given.items() if value), None)
    if wrong:
        raise OptionError(f"a format without a scale has no {wrong}", wrong, "give it a scale, such as float32")


def _zero_point(format: Format) -> None:
    if not isinstance(format.element, Int) or format.element.frac or format.element.narrow:
        raise OptionError("only whole integers have a zero point", "zero_point", "zero_point=None")
    if format.zero_point is not None and format.zero_point.frac:
        raise OptionError("a zero point is a whole integer", "zero_point", "Int(8, signed=False)")
    if format.rule not in ("absmax", "ceil", "mse"):
        raise OptionError(f"the {format.rule} rule needs a range about zero", "rule", "'absmax', 'ceil' or 'mse'")


def _offset(format: Format) -> None:
    if format.element.minimum != 0:
        raise OptionError("an offset goes with numbers from zero up", "offset", "an unsigned element, such as uint4")
    if format.zero_point is not None:
        raise OptionError("a format has a zero point or an offset", "offset", "zero_point=None")
    if format.rule not in ("absmax", "ceil", "mse"):
        raise OptionError(f"the {format.rule} rule needs a range about zero", "rule", "'absmax', 'ceil' or 'mse'")


def _is(name: str, value: object, kind: type | UnionType, accepted: str) -> None:
    if not isinstance(value, kind):
        raise OptionError(f"{name} cannot be {value!r}", name, accepted)


def _one_of(name: str, value: str, accepted: Sequence[str], whom: str = " with this element") -> None:
    if value not in accepted:
        raise OptionError(f"{name} {value!r} does not go{whom}", name, f"one of {', '.join(accepted)}")
