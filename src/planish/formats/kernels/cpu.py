"""One format on the CPU, by the C++ kernels: the same bits as the torch definition, in one pass over memory."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planish.errors import OptionError
from planish.formats.block import TENSOR
from planish.formats.integer import Int
from planish.formats.kernels.describe import (
    Arrangement,
    BlocksStruct,
    ElementStruct,
    RuleStruct,
    ScalesStruct,
    arrange,
    element_struct,
    one_run,
    scales_struct,
)
from planish.formats.parameters import Parameters, split
from planish.formats.rounding import Rounding
from planish.formats.scaling import jumps

if TYPE_CHECKING:
    from planish.formats.format import Format

_BY_RUN: dict[str, Rounding | None] = {"absmax": None, "floor": "down", "ceil": "up", "mse": "down"}
"""The rules by which a run's scale can be found as it goes, and how the scale is then rounded."""
PACKED = 3
TYPES = {torch.float32: 0, torch.uint8: 1, torch.int8: 1, torch.int32: 2}
LONGEST = 1 << 14  # a run that is still in the cache when it is read again: PIECE of formats.cpp
LISTED = 16  # bits of codes that are decoded by a table of all
_ONE = torch.ones(())


class CpuKernel:
    """The kernels of one format. Tensors are float32, bfloat16 or float16, strided, not empty, and on the CPU."""

    def __init__(self, library: ctypes.CDLL, format: Format, element: ElementStruct) -> None:
        self.compiled, self.format, self.element = library, format, element
        self.block = format.block or TENSOR
        self.levels = _measured_levels(format)

    @cached_property
    def table(self) -> Tensor | None:
        """The number of each code; None for integers, whose code says it."""
        element = self.format.element
        return None if isinstance(element, Int) else element.from_codes(torch.arange(1 << element.bits), torch.float32)

    @property
    def decodes(self) -> bool:
        """Whether codes are integers, or few enough for a table."""
        return isinstance(self.format.element, Int) or self.format.element.bits <= LISTED

    def quantize(self, x: Tensor, given: Parameters, rescale: bool) -> Tensor:
        """As `Format._quantize`: float32, the element's numbers, times the scale if `rescale`."""
        x, arrangement = self._contiguous(x)
        out = torch.empty_like(x)
        self._apply(x, out, arrangement, given, rescale)
        return out

    def cast(self, x: Tensor, parameters: Sequence[Tensor] | None, out: Tensor | None = None) -> Tensor:
        """As `Format.cast`."""
        given = self._known(x, parameters)
        plain, arrangement = self._contiguous(x)
        y = torch.empty_like(plain) if out is None else fitting(out, x)
        if y.dtype == torch.float32 and y.stride() == plain.stride():
            self._run(plain, y, arrangement, given)
            return y.to(x.dtype)
        result = torch.empty_like(plain)
        self._run(plain, result, arrangement, given)
        return y.copy_(result)

    def encode(self, x: Tensor, parameters: Sequence[Tensor] | None) -> tuple[Tensor, Parameters]:
        """Codes, and the parameters that were given or measured."""
        given = self._known(x, parameters)
        plain, arrangement = self._contiguous(x)
        kind = self.format.element.code_dtype
        codes = torch.empty_like(plain, dtype=kind if kind in TYPES else torch.int32)
        given = self._run(plain, codes, arrangement, given)
        return codes.to(kind), given

    def pack(self, x: Tensor, parameters: Sequence[Tensor] | None, out: Tensor | None) -> tuple[Tensor, Parameters]:
        """As `encode`, but the codes are packed as they are made; of codes of 8 bits or fewer."""
        given, plain, bits = self._known(x, parameters), x.float().contiguous(), self.format.element.bits
        packed = torch.empty(-(-x.numel() * bits // 8), dtype=torch.uint8) if out is None else out
        return packed, self._run(plain, packed, self._arrangement(x), given, packs=bits < 8)

    def codes(self, values: Tensor) -> Tensor:
        """As `Element.to_codes`, in a format without a scale."""
        return self.encode(values, ())[0]

    def decode(self, codes: Tensor, given: Parameters) -> Tensor:
        """As `Format._decoded`: float32."""
        codes = (codes if codes.dtype in TYPES else codes.int()).contiguous()
        blocks, scales = self._scales(given, self._arrangement(codes), tuple(codes.shape), True)
        out = torch.empty(codes.shape)
        self.compiled.planish_decode(
            ctypes.byref(blocks),
            ctypes.byref(scales),
            codes.data_ptr(),
            TYPES[codes.dtype],
            self.element.is_signed,
            self.element.down,
            None if self.table is None else self.table.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    # Inside ----------------------------------------------------------------------------------------------------------

    def _known(self, x: Tensor, parameters: Sequence[Tensor] | None) -> Parameters | None:
        """The parameters; None where they are to be measured."""
        if parameters is None or (self.format.is_dynamic and not parameters):
            return None
        return self.format._given(x, parameters)

    def _arrangement(self, x: Tensor) -> Arrangement:
        arrangement = arrange(self.block, tuple(x.shape))
        assert arrangement is not None, "`for_` asks before it hands out a kernel"
        return arrangement

    def _contiguous(self, x: Tensor) -> tuple[Tensor, Arrangement]:
        """`x` in float32, in an order of memory that the kernels can run through."""
        arrangement, x = self._arrangement(x), x.float()
        dense = arrangement.whole and torch.empty_like(x).stride() == x.stride()
        return x if dense else x.contiguous(), arrangement

    def _run(
        self, x: Tensor, out: Tensor, arrangement: Arrangement, given: Parameters | None, packs: bool = False
    ) -> Parameters:
        """Fills `out`: numbers times the scale, or codes; returns the parameters, for codes all of them."""
        rescale = out.dtype == torch.float32
        if given is not None:
            self._apply(x, out, arrangement, given, rescale, packs)
            return given
        blocks = arrangement.struct
        fused = bool(self.levels) and arrangement.in_runs and not arrangement.whole and blocks.run <= LONGEST
        if packs:  # batches of runs must begin at whole bytes, and their codes fit a buffer
            fused = fused and blocks.run <= LONGEST // 8 and blocks.length == blocks.run * blocks.count
        if not fused:
            given = self.format._measure(x)
            self._apply(x, out, arrangement, given, rescale, packs, back=True)
            return given
        level = None if rescale else torch.empty(arrangement.shape)
        zero = None if rescale or not self.format.is_affine else torch.empty(arrangement.shape)
        outer = torch.empty(()) if len(self.levels) > 1 else None
        own, above = (*self.levels, (None, None))[:2]
        self.compiled.planish_measure_and_cast(
            *map(_address, (self.element, *own, *above, blocks)),
            x.data_ptr(),
            out.data_ptr(),
            PACKED if packs else TYPES[out.dtype],
            self.format.element.bits,
            *(None if tensor is None else tensor.data_ptr() for tensor in (level, zero, outer)),
            rescale,
            torch.get_num_threads(),
        )
        if self.format.zero_point is not None and zero is not None:
            zero = zero.to(self.format.zero_point.code_dtype)
        return tuple(p for p in (level, zero, outer) if p is not None)

    def _apply(
        self,
        x: Tensor,
        out: Tensor,
        arrangement: Arrangement,
        given: Parameters,
        rescale: bool,
        packs: bool = False,
        back: bool = False,
    ) -> None:
        blocks, scales = self._scales(given, arrangement, tuple(x.shape), rescale)
        self.compiled.planish_cast(
            ctypes.byref(self.element),
            ctypes.byref(blocks),
            ctypes.byref(scales),
            x.data_ptr(),
            out.data_ptr(),
            PACKED if packs else TYPES[out.dtype],
            self.format.element.bits,
            torch.get_num_threads(),
            back,
        )

    def _scales(
        self, given: Parameters, arrangement: Arrangement, shape: tuple[int, ...], rescale: bool
    ) -> tuple[BlocksStruct, ScalesStruct]:
        """Which numbers share a scale, and the scales."""
        scale, whole = self.format.scale, one_run(math.prod(shape))
        if scale is None:
            return whole, scales_struct(_ONE, None, 1.0, rescale)
        parts, outer = split(self.format, given), 1.0
        assert parts.scale is not None
        level, zero = parts.scale.float(), None if parts.zero is None else parts.zero.float()
        if scale.levels:
            above = scale._scale(split(scale, parts.above), level.shape, torch.float32)
            if above.numel() == 1 and scale.offset is None:
                outer = float(above)
            else:
                level = scale._value(level, parts.above)
        for tensor in (level,) if zero is None else (level, zero):
            self.block.spread(tensor, shape)  # refuses what does not fit
        if level.numel() == 1 and (zero is None or zero.numel() == 1):
            return whole, scales_struct(level, zero, outer, rescale)
        level, zero = _expanded(level, arrangement), None if zero is None else _expanded(zero, arrangement)
        return arrangement.struct, scales_struct(level, zero, outer, rescale)


def _measured_levels(format: Format) -> list[tuple[ElementStruct, RuleStruct]]:
    """How one pass finds scales as it goes, and before it the scale of the scales, each in what element; empty where
    scales depend on more than a block and the whole tensor."""
    scale, element = format.scale, format.element
    if scale is None or format.rule not in _BY_RUN or scale.is_affine or scale.offset is not None:
        return []
    if format.rule == "mse" and (format.is_affine or not jumps(format)):
        return []
    above = _measured_levels(scale)
    if scale.scale is not None and (format.is_affine or len(above) != 1 or not (scale.block or TENSOR).is_tensor):
        return []
    if any(rule.least_error for _, rule in above):  # of scales that are not known yet
        return []
    struct = element_struct(replace(scale, rounding=_BY_RUN[format.rule] or scale.rounding))
    if struct is None:
        return []
    rule = RuleStruct(
        divisor=2.0**element.emax if format.rule == "floor" else element.maximum,
        smallest=scale.element.smallest if scale.element.smallest >= 2.0**-127 else 2.0**-126,
        largest=scale.element.maximum,
        both_ends=format.is_affine or element.minimum >= 0,
        affine=format.is_affine,
        zero_is_one=scale.scale is None,
        least_error=format.rule == "mse",
    )
    if format.zero_point is not None:
        assert isinstance(element, Int)
        rule.divisor = element.highest - element.lowest
        rule.lowest = element.lowest
        rule.zero_low = max(element.lowest, format.zero_point.lowest)
        rule.zero_high = min(element.highest, format.zero_point.highest)
    return [(struct, rule), *above]


def _address(struct: ctypes.Structure | None) -> object:
    return None if struct is None else ctypes.byref(struct)


def _expanded(parameter: Tensor, arrangement: Arrangement) -> Tensor:
    """One number for each block."""
    if parameter.numel() == 1:
        parameter = parameter.reshape(())
    return parameter.expand(arrangement.shape).contiguous()


def fitting(out: Tensor, x: Tensor) -> Tensor:
    """`out`, if the result for `x` can be written there."""
    if out.shape != x.shape or out.dtype != x.dtype:
        found, wanted = f"{out.dtype} of shape {tuple(out.shape)}", f"{x.dtype} of shape {tuple(x.shape)}"
        raise OptionError(f"out is {found}, the result {wanted}", "out", "torch.empty_like(x)")
    return out


def run_ranges(
    library: ctypes.CDLL, x: Tensor, blocks: BlocksStruct, shape: tuple[int, ...], both: bool
) -> tuple[Tensor, Tensor]:
    """As `scaling.ranges`, of blocks that are stretches of the memory of `x`, float32."""
    low, high = torch.empty(shape) if both else None, torch.empty(shape)
    library.planish_ranges(
        ctypes.byref(blocks),
        x.data_ptr(),
        None if low is None else low.data_ptr(),
        high.data_ptr(),
        both,
        torch.get_num_threads(),
    )
    return -high if low is None else low, high
