"""Rows of numbers as beats."""

from __future__ import annotations

from planish.targets.fpga.blocks.base import Fold


def beats_of(row: int, lanes: int) -> int:
    """Beats of a row; the last one may be filled up."""
    return -(-row // lanes)


def row_folds(row: int) -> list[Fold]:
    """As many lanes in as out: the fewest for each number of beats."""
    return [Fold(lanes, lanes) for lanes in sorted({beats_of(row, beats) for beats in range(1, row + 1)})]
