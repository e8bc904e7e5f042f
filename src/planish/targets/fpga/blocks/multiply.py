"""`Multiply`: the element-wise product of two streams."""

from __future__ import annotations

from typing_extensions import override

from planish.targets.fpga.blocks.base import Block, Fold, Instance
from planish.targets.fpga.blocks.rows import beats_of, row_folds
from planish.targets.fpga.program import Operation, Value


class MultiplyBlock(Block):
    """A multiplier for each lane; an input that is a row or one number is repeated."""

    @override
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        return row_folds(operation.output.row)

    @override
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        whole = operation.output
        beats = beats_of(whole.row, fold.pe)
        parameters = {"LANES": fold.pe, "OUT_WIDTH": whole.codes.bits, "DSP": int(fold.dsp)}
        lanes: list[int] = []
        longest = 1
        for port, value in zip("AB", inputs, strict=True):
            lanes.append(min(fold.pe, value.row))
            together, times = repeats(value, whole, beats)
            longest = max(longest, times)
            parameters |= {
                f"{port}_LANES": lanes[-1],
                f"{port}_WIDTH": value.codes.bits,
                f"{port}_SIGNED": int(value.codes.signed),
                f"{port}_BEATS": together,
                f"{port}_TIMES": times,
            }
        return Instance(
            "multiply",
            parameters,
            lanes_in=tuple(lanes),
            lanes_out=fold.pe,
            interval=whole.size // whole.row * beats,
            latency=3 + (longest > 1),
        )


def repeats(value: Value, whole: Value, beats: int) -> tuple[int, int]:
    """Beats of an input that `replay` repeats together, and how often, so that it goes along with the whole.

    Args:
        value: As large as the whole, one number a row, a row for all of them, or a single number.
        whole: What comes out.
        beats: Of a row of the whole.
    """
    rows = whole.size // whole.row
    if value.size == whole.size:
        return 1, 1
    if value.row == 1:
        return 1, beats if value.size == rows else rows * beats
    return beats, rows
