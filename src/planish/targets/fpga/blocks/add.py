"""`Add`: aligned sums and differences of two streams."""

from __future__ import annotations

from typing import cast

from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.multiply import repeats
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.program import Add, Operation, Value


class AddBlock(Block):
    """An adder for each lane; an input that is a row or one number is repeated."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(operation.output.row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        add, whole = cast(Add, operation), operation.output
        operation.require(len(inputs) == 2, f"a sum of {len(inputs)} streams; the block adds 2, so chain them")
        beats = beats_of(whole.row, fold.pe)
        parameters = {"LANES": fold.pe, "OUT_WIDTH": whole.codes.bits}
        lanes: list[int] = []
        for port, value, shift, sign in zip("AB", inputs, add.shifts, add.signs, strict=True):
            lanes.append(min(fold.pe, value.row))
            together, times = repeats(value, whole, beats)
            parameters |= {
                f"{port}_LANES": lanes[-1],
                f"{port}_WIDTH": value.codes.bits,
                f"{port}_SIGNED": int(value.codes.signed),
                f"{port}_SHIFT": shift,
                f"{port}_MINUS": int(sign < 0),
                f"{port}_BEATS": together,
                f"{port}_TIMES": times,
            }
        return Instance(
            "add",
            parameters,
            lanes_in=tuple(lanes),
            lanes_out=fold.pe,
            interval=whole.size // whole.row * beats,
            latency=1 + any(value.shape != whole.shape for value in inputs),
        )
