"""Formats and shapes in the words of the C++ kernels: the structs of elements.h, blocks.h and formats.cpp."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planish.formats.block import Block
from planish.formats.codebook import Codebook
from planish.formats.floating import FLOAT32, Float
from planish.formats.integer import Int
from planish.formats.posit import Posit
from planish.formats.pow2 import Pow2
from planish.formats.table import Table, below

if TYPE_CHECKING:
    from planish.formats.format import Format

_KINDS = {"int": 0, "float": 1, "wide": 2, "float32": 3, "pow2": 4, "small table": 5, "table": 6}
_ROUNDINGS = {"even": 0, "away": 1, "down": 2, "up": 3, "log": 4}
_SPECIALS = {"ieee": 0, "fn": 1, "fnuz": 2, "finite": 3}
_INTS = ("kind", "rounding", "infinite", "keeps_nan", "specials", "exponent", "mantissa", "bias", "is_signed", "zero")
_MORE = ("count", "finite", "code_shift", "code_mask", "code_of_nan")
_REALS = ("minimum", "maximum", "smallest", "up", "down", "low_power", "high_power", "of_nan")
MOST_AXES = 8


class ElementStruct(ctypes.Structure):
    """`Element` of elements.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in _INTS + _MORE),
        *((name, ctypes.c_float) for name in _REALS),
        ("values", ctypes.c_void_p),
        ("above", ctypes.c_void_p),
    )


class BlocksStruct(ctypes.Structure):
    """`Blocks` of blocks.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "length", "run", "count", "outer")),
        *((name, ctypes.c_int64 * MOST_AXES) for name in ("size", "step", "stride")),
    )


class ScalesStruct(ctypes.Structure):
    """`Scales` of blocks.h."""

    _fields_ = (
        ("scale", ctypes.c_void_p),
        ("zero", ctypes.c_void_p),
        ("outer", ctypes.c_float),
        ("rescale", ctypes.c_int32),
    )


class RuleStruct(ctypes.Structure):
    """`Rule` of formats.cpp."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("divisor", "smallest", "largest")),
        *((name, ctypes.c_int32) for name in ("both_ends", "affine", "zero_is_one", "least_error")),
        *((name, ctypes.c_float) for name in ("lowest", "zero_low", "zero_high")),
    )


@lru_cache(maxsize=1024)
def element_struct(format: Format) -> ElementStruct | None:
    """A format's element with its rounding, overflow and NaN policy; None where the kernels do not have it, as with
    stochastic rounding, float64 codes, or a user's own class."""
    element = format.element
    if format.rounding not in _ROUNDINGS or element.wide:
        return None
    struct = ElementStruct(
        rounding=_ROUNDINGS[format.rounding],
        infinite=format.overflow == "infinity",
        keeps_nan=format.nan == "keep",
        of_nan=element.maximum if format.nan == "max" else 0.0,
        minimum=element.minimum,
        maximum=element.maximum,
        smallest=element.smallest,
    )
    if type(element) is Int:
        struct.kind, struct.is_signed = _KINDS["int"], element.signed
        struct.minimum, struct.maximum = element.lowest, element.highest
        struct.up, struct.down = 2.0**element.frac, 2.0**-element.frac
    elif type(element) is Float:
        kind = "wide" if element.emin < element.mantissa - 127 else "float"
        struct.kind = _KINDS["float32" if element == FLOAT32 and struct.infinite else kind]
        struct.specials, struct.is_signed = _SPECIALS[element.specials], True
        struct.exponent, struct.mantissa, struct.bias = element.exponent, element.mantissa, element.bias
        struct.up, struct.down = 2.0**element.mantissa, 2.0**-element.mantissa
        struct.low_power, struct.high_power = 2.0**element.emin, 2.0**element.emax
    elif type(element) is Pow2:
        struct.kind, struct.is_signed, struct.zero = _KINDS["pow2"], element.signed, element.zero
        struct.exponent, struct.bias = element.exponent, element.bias
    elif isinstance(element, Table) and type(element) in (Codebook, Posit):
        _list(struct, element, format.rounding)
    else:
        return None
    return struct


def _list(struct: ElementStruct, element: Table, rounding: str) -> None:
    numbers = element.numbers
    if rounding in ("even", "away"):
        cuts = element.cuts(rounding)
    else:
        cuts = numbers[:-1] if rounding == "up" else tuple(map(below, numbers[1:]))
    exact = torch.tensor(cuts, dtype=torch.float64)
    # a float32 lies above a float64 exactly when it lies above the float32 at or just below that
    near = exact.float()
    near = torch.where(near.double() > exact, torch.nextafter(near, torch.tensor(-torch.inf)), near)
    size = max(16, 1 << (len(numbers) - 1).bit_length())
    above = (ctypes.c_float * size)(*near.tolist(), *[math.inf] * (size - len(cuts)))
    values = (ctypes.c_float * size)(*numbers, *[numbers[-1]] * (size - len(numbers)))
    struct.kind, struct.count = _KINDS["small table" if size == 16 else "table"], size
    struct.values, struct.above = ctypes.addressof(values), ctypes.addressof(above)
    struct.kept = (values, above)  # for as long as the struct points to them
    struct.code_mask = (1 << element.bits) - 1
    if isinstance(element, Posit):
        struct.finite, struct.code_shift, struct.code_of_nan = True, len(numbers) // 2, 1 << (element.bits - 1)


@dataclass(frozen=True)
class Arrangement:
    """Where the scales of a contiguous tensor are.

    Attributes:
        struct: For the kernels.
        shape: Of the scales.
        whole: Whether there is one scale for everything.
        in_runs: Whether each block is one stretch of memory, and their scales follow each other.
    """

    struct: BlocksStruct
    shape: tuple[int, ...]
    whole: bool
    in_runs: bool


@lru_cache(maxsize=4096)
def arrange(block: Block, shape: tuple[int, ...]) -> Arrangement | None:
    """How `block` cuts a contiguous tensor of `shape`, not empty; None where it has too many axes for the kernels."""
    scales, total = block.scale_shape(shape), math.prod(shape)
    layout = block.layout(shape) if scales else ()
    inner, axis = 1, len(shape) - 1
    while layout and axis >= 0 and layout[axis][0] == 1:
        inner, axis = inner * shape[axis], axis - 1
    if not layout or axis < 0:
        return Arrangement(one_run(total), scales, True, True)
    count, size = layout[axis]
    run, length, outer = size * inner, shape[axis] * inner, range(axis)
    if all(layout[a][0] == shape[a] for a in outer):
        if length % run == 0:
            return Arrangement(BlocksStruct(1, total, run, total // run, -1), scales, False, True)
        return Arrangement(BlocksStruct(total // length, length, run, count, -1), scales, False, True)
    if axis > MOST_AXES:
        return None
    strides = [math.prod(scales[a + 1 :]) for a in outer]
    struct = BlocksStruct(
        total // length,
        length,
        run,
        count,
        axis,
        _axes(shape[:axis]),
        _axes([layout[a][1] for a in outer]),
        _axes(strides),
    )
    return Arrangement(struct, scales, False, False)


def one_run(count: int) -> BlocksStruct:
    """`count` numbers that share a scale."""
    return BlocksStruct(1, count, count, 1, -1)


def scales_struct(scale: Tensor, zero: Tensor | None, outer: float, rescale: bool) -> ScalesStruct:
    """The scales and zero points of a tensor, contiguous float32."""
    struct = ScalesStruct(scale.data_ptr(), zero.data_ptr() if zero is not None else None, outer, rescale)
    struct.kept = (scale, zero)  # for as long as the struct points to them
    return struct


def _axes(numbers: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * MOST_AXES)(*numbers)
