"""Interleaved timing of several callables, and ratios of their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleaved(
    runs: Mapping[str, Callable[[], object]], seconds: float, least: int = 5, most: int = 200
) -> dict[str, np.ndarray]:
    """Seconds of each call, in turn, so that whatever disturbs the machine disturbs all of them.

    Args:
        runs: What to call, by name.
        seconds: About how long to take in all.
        least: Fewest rounds.
        most: Most rounds.
    """
    for run in runs.values():
        run()
    started = time.perf_counter()
    rows: list[list[float]] = []
    while len(rows) < least or (len(rows) < most and time.perf_counter() - started < seconds):
        row = []
        for run in runs.values():
            begin = time.perf_counter()
            run()
            row.append(time.perf_counter() - begin)
        rows.append(row)
    table = np.array(rows)
    return {name: table[:, column] for column, name in enumerate(runs)}


def ratio(slow: np.ndarray, fast: np.ndarray, draws: int = 1000) -> tuple[float, tuple[float, float]]:
    """Median of the paired ratios, and its 95 % interval by bootstrap over rounds."""
    paired = slow / fast
    picks = np.random.default_rng(0).integers(0, len(paired), (draws, len(paired)))
    low, high = np.quantile(np.median(paired[picks], axis=1), [0.025, 0.975])
    return float(np.median(paired)), (float(low), float(high))
