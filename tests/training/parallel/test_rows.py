from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import planish
from planish.errors import DataError, OptionError
from planish.graph import Graph
from planish.training.parallel.rows import parts
from tests.training.parallel import networks


@given(count=st.integers(1, 6), size=st.integers(1, 5))
def test_parts_are_the_whole(count: int, size: int) -> None:
    rows = count * size
    item = ((torch.arange(rows), 3), {"mask": torch.arange(rows * 2).view(rows, 2), "name": "x"}, torch.arange(rows))
    found = parts(item, count)
    assert len(found) == count
    assert torch.equal(torch.cat([args[0] for args, _, _ in found]), item[0][0])
    assert torch.equal(torch.cat([kwargs["mask"] for _, kwargs, _ in found]), item[1]["mask"])
    assert torch.equal(torch.cat([target for _, _, target in found]), item[2])
    assert all(args[1] == 3 and kwargs["name"] == "x" for args, kwargs, _ in found)


def test_what_only_happens_to_be_as_long_stays_whole() -> None:
    graph, data = networks.captured("gnn")
    args, kwargs, _ = parts(data[0], 2, graph)[1]
    assert torch.equal(args[0], data[0][0][0][4:])
    assert torch.equal(kwargs["adjacency"], data[0][1]["adjacency"])  # 8 nodes, and 8 rows


def test_rows_that_do_not_divide() -> None:
    with pytest.raises(DataError, match=r"8 rows has no 3 equal parts[\s\S]*batches of 9 rows"):
        parts(((torch.zeros(8),), {}, torch.zeros(8)), 3)
    with pytest.raises(DataError, match="no rows"):
        parts(((torch.zeros(8),), {}, 1.0), 2)


def test_a_batch_that_is_fixed() -> None:

    graph: Graph = planish.capture(torch.nn.Linear(2, 2), (torch.zeros(8, 2),))
    with pytest.raises(OptionError, match="captured for one batch size"):
        parts(((torch.zeros(8, 2),), {}, torch.zeros(8)), 2, graph)
