"""One format on CUDA, by a Triton kernel: the same numbers and codes as the torch definition, in one pass.

Parameters are measured by the definition; what runs over all the numbers (divide, round, multiply, or round to codes)
is one kernel. It also runs in Triton's interpreter (`TRITON_INTERPRET=1`), on tensors of the CPU.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false
# ruff: noqa: A002, N803, SIM108, SIM109  (`format` is the word for it everywhere else; Triton compiles this code)
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish.errors import OptionError
from planish.formats.block import TENSOR
from planish.formats.codes import pack
from planish.formats.kernels.describe import Arrangement, ElementStruct, arrange
from planish.formats.parameters import Parameters, split

if TYPE_CHECKING:
    from planish.formats.format import Format

NUMBERS = 1024  # a program
INT, FLOAT, WIDE, FLOAT32, POW2 = (tl.constexpr(kind) for kind in range(5))
IEEE, FN, FNUZ = (tl.constexpr(kind) for kind in range(3))
WHOLE = tl.constexpr(8388608.0)  # 2**23, from which every float32 is whole


@triton.jit
def _signed(size, sign):
    """The magnitude `size` with the sign bit of `sign`."""
    pattern = size.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return (pattern | (sign.to(tl.int32, bitcast=True) & -2147483648)).to(tl.float32, bitcast=True)


@triton.jit
def _nearest(x):
    """To whole numbers, ties to even; NaN, infinities and the sign of zero stay."""
    size = tl.abs(x)
    return tl.where(size < WHOLE, _signed((size + WHOLE) - WHOLE, x), x)


@triton.jit
def _clamp(x, low, high):
    """NaN stays."""
    return tl.where(x < low, low, tl.where(x > high, high, x))


@triton.jit
def _power(x, low, high):
    """The power of two of `|x|`, clamped; that of NaN and of infinities is the highest."""
    pattern = x.to(tl.int32, bitcast=True) & 0x7F800000
    return _clamp(pattern.to(tl.float32, bitcast=True), low, high)


@triton.jit
def _round_float(
    x,
    up,
    down,
    low,
    high,
    low_power,
    high_power,
    WIDE_RANGE: tl.constexpr,
    INFINITE: tl.constexpr,
    SPECIALS: tl.constexpr,
):
    power = _power(x, low_power, high_power)
    inverse = 0x7F000000 - power.to(tl.int32, bitcast=True)  # of 2**127 it is subnormal
    inverse = tl.where(inverse < 0x00400000, 0x00400000, inverse).to(tl.float32, bitcast=True)
    if WIDE_RANGE:
        r = _nearest(x * inverse * up) * down * power
    else:
        r = _nearest(x * (inverse * up)) * (power * down)
    if INFINITE:
        beyond = _signed(tl.full(r.shape, float("inf"), tl.float32), r)
        if SPECIALS != IEEE:
            beyond = tl.full(r.shape, float("nan"), tl.float32)
        r = tl.where(tl.abs(r) > high, beyond, r)
    else:
        r = _clamp(r, low, high)
    if SPECIALS == FNUZ:
        r = r + 0.0
    return r


@triton.jit
def _round_power(x, low, high, bias, SIGNED: tl.constexpr, ZERO: tl.constexpr):
    negative = x.to(tl.int32, bitcast=True) < 0
    size = tl.abs(x) if SIGNED else tl.where(x < 0.0, 0.0, x)
    power = _power(size, low, high)
    rest = tl.div_rn(size, power)
    odd = (((power.to(tl.int32, bitcast=True) >> 23) - 127 + bias) & 1) == 1
    doubled = (rest > 1.5) | ((rest == 1.5) & odd)
    power = tl.where(doubled, power * 2.0, power)
    power = tl.where(power > high, high, power)
    if ZERO:
        power = tl.where(rest <= 0.5, 0.0, power)
    if SIGNED:
        power = tl.where(negative & (power > 0.0), -power, power)
    return tl.where(x == x, power, x)


@triton.jit
def _float_code(
    x,
    low_power,
    from_normal,
    up,
    MANTISSA: tl.constexpr,
    EXPONENT: tl.constexpr,
    BIAS: tl.constexpr,
    SPECIALS: tl.constexpr,
):
    size = tl.abs(x)
    pattern = size.to(tl.int32, bitcast=True)
    subnormal = (tl.where(size < low_power, size, 0.0) * from_normal * up).to(tl.int32)
    code = tl.where(size < low_power, subnormal, (pattern >> (23 - MANTISSA)) - ((127 - BIAS) << MANTISSA))
    TOP: tl.constexpr = ((1 << EXPONENT) - 1) << MANTISSA
    code = tl.where(pattern == 0x7F800000, TOP, code)
    nan = pattern > 0x7F800000
    negative = x.to(tl.int32, bitcast=True) < 0
    if SPECIALS == IEEE:
        code = tl.where(nan, TOP | (1 << (MANTISSA - 1)), code)
    if SPECIALS == FN:
        code = tl.where(nan, (1 << (EXPONENT + MANTISSA)) - 1, code)
    if SPECIALS == FNUZ:
        code = tl.where(nan, 0, code)
        negative = negative | nan
    return code | tl.where(negative, 1 << (EXPONENT + MANTISSA), 0)


@triton.jit
def _place(x, above, COUNT: tl.constexpr):
    """How many of the bounds lie below `x`."""
    at = tl.zeros(x.shape, tl.int32)
    half: tl.constexpr = COUNT // 2
    for step in tl.static_range(0, 9):
        if (half >> step) > 0:
            at += tl.where(x > tl.load(above + at + (half >> step) - 1), half >> step, 0)
    return at


@triton.jit
def _quantize(
    x_pointer, out, scales, zeros, values, above, total, length, run, row_step, outer,
    of_nan, low, high, up, down, low_power, high_power, smallest, from_normal, shift, mask, code_of_nan,
    KIND: tl.constexpr, KEEPS_NAN: tl.constexpr, INFINITE: tl.constexpr, SPECIALS: tl.constexpr,
    MANTISSA: tl.constexpr, EXPONENT: tl.constexpr, BIAS: tl.constexpr, SIGNED: tl.constexpr, ZERO: tl.constexpr,
    COUNT: tl.constexpr, FINITE: tl.constexpr, AFFINE: tl.constexpr, RESCALE: tl.constexpr, CODES: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < total
    x = tl.load(x_pointer + at, mask=inside, other=0.0).to(tl.float32)
    block = (at // length) * row_step + (at % length) // run
    scale = tl.load(scales + block, mask=inside, other=1.0) * outer
    zero = tl.load(zeros + block, mask=inside, other=0.0) if AFFINE else tl.zeros(x.shape, tl.float32)
    x = tl.div_rn(x, scale)
    if not KEEPS_NAN:
        x = tl.where(x == x, x, of_nan)
    if KIND == INT:
        y = (_clamp(_nearest(x * up) + zero, low, high) - zero) * down
        code = (y * up + zero).to(tl.int32)
    elif KIND == FLOAT or KIND == WIDE:
        y = _round_float(x, up, down, low, high, low_power, high_power, KIND == WIDE, INFINITE, SPECIALS)
        code = _float_code(y, low_power, from_normal, up, MANTISSA, EXPONENT, BIAS, SPECIALS) if CODES else 0
    elif KIND == FLOAT32:
        y = x
        pattern = y.to(tl.int32, bitcast=True)
        code = tl.where(y == y, pattern, (pattern & -2147483648) | 0x7FC00000)
    elif KIND == POW2:
        y = _round_power(x, smallest, high, BIAS, SIGNED, ZERO)
        code = ((tl.abs(y).to(tl.int32, bitcast=True) >> 23) - 127 + BIAS) | tl.where(y < 0.0, 1 << EXPONENT, 0)
        if ZERO:
            code = tl.where(y == 0.0, 0, code)
        code = tl.where(y == y, code, (1 << EXPONENT) - 1)
    else:
        place = _place(x, above, COUNT)
        y = tl.load(values + place)
        code = (place - shift) & mask
        if FINITE:
            y = tl.where(tl.abs(x) < float("inf"), y, float("nan"))
            code = tl.where(y == y, code, code_of_nan)
    if CODES:
        tl.store(out + at, code.to(out.dtype.element_ty), mask=inside)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        y = y * scale if RESCALE else y
        tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


class GpuKernel:
    """The Triton kernel of one format, for float32, bfloat16 and float16 tensors."""

    decodes = False

    def __init__(self, format: Format, element: ElementStruct) -> None:
        self.format, self.element, self.block = format, element, format.block or TENSOR
        self.tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def quantize(self, x: Tensor, given: Parameters, rescale: bool) -> Tensor:
        """As `Format._quantize`: float32, the element's numbers, times the scale if `rescale`."""
        return self._run(x, torch.empty(x.shape, device=x.device), given, rescale)

    def cast(self, x: Tensor, parameters: Sequence[Tensor] | None, out: Tensor | None = None) -> Tensor:
        """As `Format.cast`."""
        if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
            raise OptionError(f"out is {out.dtype} of shape {tuple(out.shape)}", "out", "torch.empty_like(x)")
        given = self.format._given(x, parameters)
        if out is not None and out.dtype == torch.float32 and out.is_contiguous():
            return self._run(x, out, given, rescale=True)
        y = self.quantize(x, given, rescale=True)
        return y.to(x.dtype) if out is None else out.copy_(y)

    def encode(self, x: Tensor, parameters: Sequence[Tensor] | None) -> tuple[Tensor, Parameters]:
        """Codes, and the parameters that were given or measured."""
        given = self.format._given(x, parameters)
        codes = torch.empty(x.shape, dtype=self.format.element.code_dtype, device=x.device)
        return self._run(x, codes, given, rescale=False), given

    def pack(self, x: Tensor, parameters: Sequence[Tensor] | None, out: Tensor | None) -> tuple[Tensor, Parameters]:
        """Packed codes, and the parameters."""
        codes, given = self.encode(x, parameters)
        packed = pack(codes, self.format.element.bits)
        return packed if out is None else out.copy_(packed), given

    def _run(self, x: Tensor, out: Tensor, given: Parameters, rescale: bool) -> Tensor:
        arrangement = arrange(self.block, tuple(x.shape))
        assert arrangement is not None
        e, total = self.element, x.numel()
        scale, zero, outer, length, run, row_step = self._scales(given, arrangement, x)
        values, above = self._tables(x.device)
        _quantize[(triton.cdiv(total, NUMBERS),)](  # pyright: ignore[reportIndexIssue]
            x.contiguous(), out, scale, zero, values, above, total, length, run, row_step, outer,
            e.of_nan, e.minimum, e.maximum, e.up, e.down, e.low_power, e.high_power, e.smallest,
            math.ldexp(1.0, e.bias - 1), e.code_shift, e.code_mask, e.code_of_nan,
            KIND=e.kind, KEEPS_NAN=bool(e.keeps_nan), INFINITE=bool(e.infinite), SPECIALS=e.specials,
            MANTISSA=e.mantissa, EXPONENT=e.exponent, BIAS=e.bias, SIGNED=bool(e.is_signed), ZERO=bool(e.zero),
            COUNT=e.count, FINITE=bool(e.finite), AFFINE=self.format.is_affine, RESCALE=rescale,
            CODES=not out.dtype.is_floating_point, SIZE=NUMBERS,
        )  # fmt: skip
        return out

    def _scales(
        self, given: Parameters, arrangement: Arrangement, x: Tensor
    ) -> tuple[Tensor, Tensor, float, int, int, int]:
        """Scales, zero points, what all scales are multiplied by, and where the scale of each number is."""
        form, blocks, total = self.format, arrangement.struct, x.numel()
        one = torch.ones(1, device=x.device)
        if form.scale is None:
            return one, one, 1.0, total, total, 0
        parts = split(form, given)
        assert parts.scale is not None
        level = form.scale._value(parts.scale.float(), parts.above)
        zero = None if parts.zero is None else parts.zero.float()
        found = [level] if zero is None else [level, zero]
        for tensor in found:
            self.block.spread(tensor, x.shape)  # refuses what does not fit
        if all(tensor.numel() == 1 for tensor in found):
            found = [tensor.reshape(1) for tensor in found]
            return found[0], found[-1], 1.0, total, total, 0
        found = [t.reshape(() if t.numel() == 1 else t.shape).expand(arrangement.shape).contiguous() for t in found]
        row_step = blocks.count if arrangement.in_runs else 0
        return found[0], found[-1], 1.0, blocks.length, blocks.run, row_step

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self.tables:
            lists = self.element.kept if self.element.values else ([0.0], [0.0])
            first, second = (torch.tensor(list(numbers), device=device) for numbers in lists)
            self.tables[device] = first, second
        return self.tables[device]


def takes(format: Format, shape: tuple[int, ...]) -> bool:
    """Whether the kernel has this format's rounding, and finds the scales of such a tensor by one division."""
    if format.rounding != "even" or format.offset is not None:
        return False
    arrangement = arrange(format.block or TENSOR, shape)
    if arrangement is None:
        return False
    struct = arrangement.struct
    return arrangement.in_runs or all(struct.step[axis] == struct.size[axis] for axis in range(struct.outer))
