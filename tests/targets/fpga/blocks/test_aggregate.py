from __future__ import annotations

import numpy as np
import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.operations.products import Aggregate
from tests.targets.fpga.blocks.harness import check, value


def aggregate(nodes: int, targets: int, channels: int, lanes: int, share: float, dsp: bool = True) -> None:
    rng = np.random.default_rng(nodes)
    matrix = rng.integers(-7, 8, (targets, nodes)) * (rng.random((targets, nodes)) < share)
    made = value("y", (targets, channels), 12 + nodes.bit_length())
    samples = 1 + 10_000 // (targets * channels)
    check(Aggregate(("x",), made, matrix), (value("x", (nodes, channels), 8),), Fold(lanes, lanes, dsp), samples)


def test_some_neighbors() -> None:
    aggregate(6, 5, 7, 3, 0.3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("nodes", "targets", "channels", "lanes", "share"),
    [(9, 9, 4, 4, 0.2), (2, 1, 1, 1, 0.9), (3, 4, 2, 1, 0.0), (5, 2, 3, 2, 0.1), (12, 12, 5, 1, 1.0)],
)
def test_aggregate(nodes: int, targets: int, channels: int, lanes: int, share: float) -> None:
    aggregate(nodes, targets, channels, lanes, share)


@pytest.mark.long
def test_without_dsp() -> None:
    aggregate(9, 9, 5, 2, 0.3, dsp=False)
