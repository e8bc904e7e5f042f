"""`Convolve`: windows before the matrix-vector unit, or a kernel for each channel."""

from __future__ import annotations

from math import prod
from typing import cast

import numpy as np
from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance, Memory
from planish.targets.fpga.blocks.matvec import SMALL, Folded, folds, in_block, signed_bits
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.blocks.windows import Windows
from planish.targets.fpga.program import Convolve, Operation, Value


class ConvolveBlock(Block):
    """Channels are folded; the places of the kernel follow each other."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        convolve, (x,) = cast(Convolve, operation), inputs
        if _is_depthwise(convolve):
            return row_folds(x.row)
        rows, columns = convolve.weight.shape[0] // convolve.groups, convolve.weight.shape[-1]
        product = x.codes.bits + int(np.abs(convolve.weight).max(initial=1)).bit_length() + 1
        offered = folds(rows, columns, product, operation.output.codes.bits)
        if convolve.groups > 1:
            offered = list(dict.fromkeys((_divisor(columns, simd), _divisor(rows, pe)) for simd, pe in offered))
        return [Fold(simd, pe) for simd, pe in offered]

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        convolve, (x,) = cast(Convolve, operation), inputs
        return _depthwise(convolve, x, fold) if _is_depthwise(convolve) else _dense(convolve, x, fold)


def _is_depthwise(convolve: Convolve) -> bool:
    return convolve.groups > 1 and convolve.weight.shape[0] == convolve.groups and convolve.weight.shape[-1] == 1


def _divisor(size: int, wanted: int) -> int:
    """The largest number at once that divides a group: its beats hold nothing of the next one."""
    return max(each for each in range(1, min(size, wanted) + 1) if size % each == 0)


def _windows(convolve: Convolve, x: Value, groups: int, beats: int) -> Windows:
    return Windows(
        x.shape[:-1],
        convolve.output.shape[:-1],
        convolve.kernel,
        convolve.stride,
        convolve.padding,
        convolve.dilation,
        groups,
        beats,
    )


def _dense(convolve: Convolve, x: Value, fold: Fold) -> Instance:
    groups, (out, columns) = convolve.groups, (convolve.weight.shape[0], convolve.weight.shape[-1])
    rows = out // groups
    simd, pe = min(fold.simd, columns), min(fold.pe, rows)
    if groups > 1:
        simd, pe = _divisor(columns, simd), _divisor(rows, pe)
    beats = beats_of(columns, simd)
    filled = np.pad(convolve.weight.reshape(groups, rows, -1, columns), ((0, 0),) * 3 + ((0, -columns % simd),))
    unit = Folded(
        filled.reshape(groups, rows, -1, simd),
        None if convolve.bias is None else convolve.bias.reshape(groups, rows),
        x.codes,
        convolve.output.codes,
        pe,
        fold.dsp,
    )
    windows = _windows(convolve, x, groups, beats)
    pointwise = windows.taps == 1 and windows.sizes == windows.counts
    parameters = unit.parameters()
    if not pointwise:
        parameters |= windows.parameters() | {"BEATS": beats}
    return Instance(
        "matvec" if pointwise else "convolve",
        parameters,
        unit.memories(),
        lanes_in=(simd,),
        lanes_out=pe,
        interval=prod(windows.sizes) * unit.interval if pointwise else windows.interval(unit.passes),
        latency=unit.latency if pointwise else windows.latency + unit.latency,
    )


def _depthwise(convolve: Convolve, x: Value, fold: Fold) -> Instance:
    lanes, channels = fold.pe, x.row
    windows = _windows(convolve, x, beats_of(channels, lanes), 1)
    weight = np.pad(convolve.weight.reshape(channels, -1), ((0, -channels % lanes), (0, 0)))
    words = weight.reshape(-1, lanes, windows.taps).swapaxes(1, 2).reshape(-1, lanes)
    bits = signed_bits(words)
    memories = {"WEIGHTS": Memory(words, bits)}
    if convolve.bias is not None:
        biases = np.pad(convolve.bias, (0, -channels % lanes)).reshape(-1, lanes)
        memories["BIASES"] = Memory(biases, convolve.output.codes.bits)
    return Instance(
        "depthwise",
        windows.parameters()
        | {
            "LANES": lanes,
            "IN_WIDTH": x.codes.bits,
            "IN_SIGNED": int(x.codes.signed),
            "WEIGHT_WIDTH": bits,
            "WEIGHT_BLOCK": int(in_block(len(words), lanes * bits)),
            "BIAS": int(convolve.bias is not None),
            "OUT_WIDTH": convolve.output.codes.bits,
            "DSP": int(fold.dsp and bits * x.codes.bits > SMALL),
        },
        memories,
        lanes_in=(lanes,),
        lanes_out=lanes,
        interval=windows.interval(),
        latency=windows.latency + windows.taps + 5,
    )
