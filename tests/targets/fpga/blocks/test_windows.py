"""Convolutions and pools of one to three dimensions against the integer program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.program import Codes, Convolve, Operation, Pool, Value
from tests.targets.fpga.blocks.harness import check, value

Pairs = tuple[tuple[int, int], ...]


def fitted(draft: Operation, x: Value) -> Operation:
    """With the output's shape and bounds."""
    return replace(draft, output=Value("y", draft.shape(x), Codes(*draft.bounds(x))))


def convolve(
    x: Value,
    out: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int = 1,
    bias: bool = True,
) -> Operation:
    rng = np.random.default_rng(0)
    weight = rng.integers(-7, 8, (out, *kernel, x.row // groups))
    wide = Value("y", (1,) * len(x.shape), Codes(-(1 << 40), 1 << 40))
    given = rng.integers(-99, 100, out) if bias else None
    return fitted(Convolve(("x",), wide, weight, given, stride, padding, dilation, groups), x)


def pool(x: Value, kind: str, kernel: tuple[int, ...], stride: tuple[int, ...], padding: Pairs) -> Operation:
    wide = Value("y", (1,) * len(x.shape), Codes(-(1 << 40), 1 << 40))
    return fitted(Pool(("x",), wide, kind, kernel, stride, padding), x)


ONE = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))
DENSE = {
    "same": (value("x", (6, 5, 3), 4), 4, (3, 3), (1, 1), ONE, (1, 1), 1, Fold(2, 3)),
    "valid": (value("x", (6, 7, 2), 4), 3, (3, 2), (1, 1), NONE, (1, 1), 1, Fold(2, 3)),
    "stride": (value("x", (7, 8, 3), 4, False), 5, (3, 3), (2, 2), ONE, (1, 1), 1, Fold(1, 2)),
    "uneven": (value("x", (7, 8, 2), 4), 2, (3, 2), (3, 2), ((0, 2), (1, 0)), (1, 1), 1, Fold(2, 1)),
    "dilation": (value("x", (9, 8, 2), 4), 2, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), 1, Fold(1, 2)),
    "skipping": (value("x", (9, 9, 1), 4), 4, (1, 1), (3, 3), NONE, (1, 1), 1, Fold(1, 4)),
    "pointwise": (value("x", (3, 4, 5), 4), 3, (1, 1), (1, 1), NONE, (1, 1), 1, Fold(2, 2)),
    "grouped": (value("x", (4, 5, 6), 4), 8, (3, 3), (1, 1), ONE, (1, 1), 2, Fold(2, 3)),
    "one-dimensional": (value("x", (12, 3), 4), 4, (5,), (2,), ((2, 2),), (1,), 1, Fold(3, 4)),
    "causal": (value("x", (8, 2), 4), 3, (3,), (1,), ((4, 0),), (2,), 1, Fold(1, 3)),
    "three-dimensional": (
        value("x", (4, 5, 4, 2), 4),
        3,
        (2, 3, 3),
        (1, 2, 1),
        ((0, 1), *ONE),
        (1, 1, 1),
        1,
        Fold(2, 2),
    ),
    "depthwise": (value("x", (6, 5, 5), 4), 5, (3, 3), (1, 1), ONE, (1, 1), 5, Fold(2, 2)),
    "depthwise stride": (value("x", (7, 7, 4), 6, False), 4, (3, 3), (2, 2), ONE, (1, 1), 4, Fold(4, 4)),
    "depthwise 1-D": (value("x", (9, 3), 6), 3, (3,), (1,), ((2, 0),), (1,), 3, Fold(1, 1, dsp=False)),
    "depthwise doubled": (value("x", (5, 5, 3), 6), 6, (3, 3), (1, 1), ONE, (1, 1), 3, Fold(3, 2)),
}


@pytest.mark.parametrize(
    "name",
    [name if name in ("stride", "depthwise") else pytest.param(name, marks=pytest.mark.long) for name in DENSE],
)
def test_convolutions(name: str) -> None:
    x, out, kernel, stride, padding, dilation, groups, fold = DENSE[name]
    operation = convolve(x, out, kernel, stride, padding, dilation, groups, bias=name != "valid")
    check(operation, (x,), fold, samples=10000 // operation.output.size + 1)


@pytest.mark.parametrize(
    ("kind", "shape", "kernel", "stride", "padding", "lanes"),
    [
        ("max", (6, 6, 5), (3, 3), (2, 2), ONE, 2),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in [
                ("max", (6, 6, 3), (2, 2), (2, 2), NONE, 3),
                ("sum", (6, 7, 3), (3, 2), (1, 2), ONE, 2),
                ("sum", (5, 5, 4), (5, 5), (1, 1), NONE, 4),
                ("sum", (9, 3), (4,), (3,), ((1, 1),), 1),
                ("max", (4, 4, 4, 2), (2, 2, 2), (2, 2, 2), (*NONE, (0, 0)), 2),
            ]
        ),
    ],
)
def test_pools(
    kind: str, shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: Pairs, lanes: int
) -> None:
    x = value("x", shape, 5)
    operation = pool(x, kind, kernel, stride, padding)
    check(operation, (x,), Fold(lanes, lanes), samples=10000 // operation.output.size + 1)
