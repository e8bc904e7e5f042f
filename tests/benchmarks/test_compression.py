"""What the benchmarks of compression take of the data."""

from __future__ import annotations

import pytest
import torch
from benchmarks.adaptive import TIMED, _calls
from benchmarks.compression import _spread


@pytest.mark.parametrize("count", [4, 16, 128])
def test_calibration_rows_are_of_every_length(count: int) -> None:
    """Rows come in order of length, so the first ones alone would be the shortest."""
    items = [((torch.full((rows, length), length),), {}) for length, rows in enumerate([30, 1, 64, 40, 121], 3)]
    taken = _spread(items, count)
    lengths = [length for (x,), _ in taken for length in x[:, 0].tolist()]
    assert len(lengths) == count
    assert max(lengths) == 7
    whole = [length for (x,), _ in items for length in x[:, 0].tolist()]
    assert abs(sum(lengths) / count - sum(whole) / len(whole)) < 4 / count + 0.1


@pytest.mark.parametrize("batch", [1, 32])
def test_timed_rows_are_spread_over_the_data(batch: int) -> None:
    items = [((torch.arange(50.0)[:, None] + 50 * place,), {}, None) for place in range(40)]
    rows = torch.cat([args[0] for args, _ in _calls(items, batch)])
    assert len(rows) == TIMED
    assert rows[0] < 50
    assert rows[-1] > 1850
