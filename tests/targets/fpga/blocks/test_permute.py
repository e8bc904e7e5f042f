from __future__ import annotations

import pytest

from planish.errors import GraphError
from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.blocks.permute import PermuteBlock
from planish.targets.fpga.operations.layout import Permute
from tests.targets.fpga.blocks.harness import check, value


def permutation(shape: tuple[int, ...], axes: tuple[int, ...]) -> Permute:
    return Permute(("x",), value("y", tuple(shape[axis] for axis in axes), 5), axes)


def permute(shape: tuple[int, ...], axes: tuple[int, ...], lanes: int) -> None:
    samples = 1 + 10_000 // value("x", shape, 5).size
    check(permutation(shape, axes), (value("x", shape, 5),), Fold(lanes, lanes), samples)


def test_rows_stay_whole() -> None:
    permute((3, 4, 5), (1, 0, 2), 2)


def test_numbers_of_a_row_part() -> None:
    permute((3, 4, 5), (2, 1, 0), 1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("shape", "axes", "lanes"),
    [
        ((2, 3, 4, 2, 5), (3, 1, 0, 4, 2), 1),
        ((2, 3, 2, 2, 3, 2), (5, 4, 3, 2, 1, 0), 1),
        ((4, 5), (1, 0), 1),
        ((16, 4, 16), (1, 0, 2), 4),
        ((2, 3, 4, 5), (2, 3, 0, 1), 1),
    ],
)
def test_permute(shape: tuple[int, ...], axes: tuple[int, ...], lanes: int) -> None:
    permute(shape, axes, lanes)


@pytest.mark.parametrize(
    ("shape", "axes"), [((6,), (0,)), ((1, 4, 6), (1, 0, 2)), ((4, 1), (1, 0)), ((3, 1, 2, 1), (0, 3, 2, 1))]
)
def test_the_same_order_is_wires(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    instance = PermuteBlock().instance(permutation(shape, axes), (value("x", shape, 5),), Fold())
    assert (instance.module, instance.parameters["TIMES"], instance.latency) == ("replay", 1, 0)


@pytest.mark.long
def test_wires() -> None:
    permute((1, 4, 6), (1, 0, 2), 4)


def test_neighbors_that_stay_together_share_a_counter() -> None:
    shape = (2, 3, 4, 5)
    instance = PermuteBlock().instance(permutation(shape, (2, 3, 0, 1)), (value("x", shape, 5),), Fold())
    assert [instance.parameters[f"COUNT{level}"] for level in range(6)] == [1, 1, 1, 1, 20, 6]


def test_words_keep_their_width() -> None:
    operation = Permute(("x",), value("y", (2, 3), 6), (1, 0))
    with pytest.raises(GraphError, match="change their width"):
        PermuteBlock().instance(operation, (value("x", (3, 2), 5),), Fold())
