"""`Slice`, `Concat`, `Spread` and `Repeat`: numbers dropped, joined, set apart and repeated."""

from __future__ import annotations

from math import gcd, prod
from typing import cast

from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.blocks.windows import AXES
from planish.targets.fpga.program import Concat, Operation, Repeat, Slice, Spread, Value


def _fitting(row: int, lanes: int) -> int:
    """The most lanes, up to those wanted, that a row or a part of it fills."""
    return max(each for each in range(1, min(row, lanes) + 1) if row % each == 0)


def _divisors(row: int) -> list[Fold]:
    return [Fold(lanes, lanes) for lanes in range(1, row + 1) if row % lanes == 0]


def _beats(value: Value, lanes: int) -> int:
    """Beats of a sample."""
    return value.size // value.row * beats_of(value.row, lanes)


class SliceBlock(Block):
    """Along the last axis, beats stay or go whole: lanes divide the axis, where the part begins and its length."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        part, (x,) = cast(Slice, operation), inputs
        return _divisors(self._unit(part, x)) if part.axis == len(x.shape) - 1 else row_folds(x.row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        part, (x,), lanes = cast(Slice, operation), inputs, fold.pe
        size, start, stop = x.shape[part.axis], part.start, part.stop
        if part.axis == len(x.shape) - 1:
            lanes, inner = _fitting(self._unit(part, x), lanes), 1
            size, start, stop = size // lanes, start // lanes, -(-stop // lanes)
        else:
            inner = prod(x.shape[part.axis + 1 : -1]) * beats_of(x.row, lanes)
        return Instance(
            "slice",
            {
                "WIDTH": lanes * x.codes.bits,
                "SIZE": size,
                "INNER": inner,
                "START": start,
                "STOP": stop,
                "STEP": part.step,
            },
            lanes_in=(lanes,),
            lanes_out=lanes,
            interval=_beats(x, lanes),
            latency=start * inner,
        )

    @staticmethod
    def _unit(part: Slice, x: Value) -> int:
        return gcd(x.row, part.start, part.stop) if part.step == 1 else 1


class ConcatBlock(Block):
    """Along the last axis, lanes divide both rows."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        joined = cast(Concat, operation)
        if joined.axis == len(joined.output.shape) - 1:
            return _divisors(gcd(*(value.row for value in inputs)))
        return row_folds(joined.output.row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        joined, whole, lanes = cast(Concat, operation), operation.output, fold.pe
        operation.require(len(inputs) == 2, f"{len(inputs)} streams; the block joins 2, so chain them")
        if joined.axis == len(whole.shape) - 1:
            lanes = _fitting(gcd(*(value.row for value in inputs)), lanes)
        turns = prod(whole.shape[: joined.axis])
        parameters = {"LANES": lanes, "OUT_WIDTH": whole.codes.bits}
        for port, value in zip("AB", inputs, strict=True):
            parameters |= {
                f"{port}_WIDTH": value.codes.bits,
                f"{port}_SIGNED": int(value.codes.signed),
                f"{port}_BEATS": _beats(value, lanes) // turns,
            }
        interval = sum(_beats(value, lanes) for value in inputs)
        return Instance("concat", parameters, lanes_in=(lanes,) * 2, lanes_out=lanes, interval=interval, latency=0)


class SpreadBlock(Block):
    """A row of channels is a place."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(inputs[0].row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        spread, (x,), lanes = cast(Spread, operation), inputs, fold.pe
        return Instance(
            "spread",
            {
                "WIDTH": lanes * x.codes.bits,
                **_axes("SIZE", x.shape[:-1]),
                **_axes("STRIDE", spread.stride),
                "BEATS": beats_of(x.row, lanes),
            },
            lanes_in=(lanes,),
            lanes_out=lanes,
            interval=_beats(spread.output, lanes),
            latency=1,
        )


class RepeatBlock(Block):
    """A row of channels is a place."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(inputs[0].row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        repeat, (x,), lanes = cast(Repeat, operation), inputs, fold.pe
        sizes = _axes("SIZE", x.shape[:-1])
        del sizes["SIZE_0"]
        return Instance(
            "upsample",
            {
                "WIDTH": lanes * x.codes.bits,
                **sizes,
                **_axes("TIMES", repeat.times),
                "BEATS": beats_of(x.row, lanes),
            },
            lanes_in=(lanes,),
            lanes_out=lanes,
            interval=_beats(repeat.output, lanes),
            latency=sum(times > 1 for times in repeat.times),
        )


def _axes(name: str, values: tuple[int, ...]) -> dict[str, int]:
    return {f"{name}_{axis}": values[axis] if axis < len(values) else 1 for axis in range(AXES)}
