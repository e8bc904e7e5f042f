"""Zeros among activations, against counting by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.analysis import activation_sparsity
from planish.errors import DataError, OptionError
from planish.frontends import capture


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8), nn.GELU())
    return capture(model.eval(), (torch.randn(4, 16),), dynamic={"input": {0: "batch"}})


def test_counts_are_those_by_hand(graph):
    data = [((torch.randn(rows, 16),), {}) for rows in (4, 9)]
    found = {n.op: n for n in activation_sparsity(graph, data, tolerance=0.1).nodes}
    weight, bias = graph.tensors["0.weight"].detach(), graph.tensors["0.bias"].detach()
    outputs = [nn.functional.linear(x, weight, bias).relu() for (x,), _ in data]
    total = sum(y.numel() for y in outputs)
    assert found["relu"].count == total == 13 * 32
    assert found["relu"].zeros == sum(int((y == 0).sum()) for y in outputs) / total
    near = sum(int((y <= 0.1 * y.square().mean().sqrt()).sum()) for y in outputs)
    assert abs(found["relu"].near - near / total) <= 1 / total  # one number may lie at the border
    assert found["gelu"].zeros == 0 < found["gelu"].near


def test_as_measurements_and_table(graph):
    sparsity = activation_sparsity(graph, [((torch.zeros(4, 16),), {})])
    rows = sparsity.measurements()
    assert {row.name for row in rows} == {"activation_zeros", "activation_near_zeros"}
    assert len(rows) == 2 * len(sparsity.nodes)
    assert all(row.unit == "1" and row.source == "measured" and 0 <= row.value <= 1 for row in rows)
    assert {row.where for row in rows} == {"0", "1", "2", "3"}
    assert sparsity.table().row_count == 4


def test_all_zeros_are_near_zero():
    zeros = capture(nn.ReLU(), (torch.ones(4),))
    (node,) = activation_sparsity(zeros, [((-torch.ones(4),), {})]).nodes
    assert (node.zeros, node.near) == (1, 1)


def test_bad_input_is_refused(graph):
    with pytest.raises(OptionError, match="below zero"):
        activation_sparsity(graph, [((torch.zeros(4, 16),), {})], tolerance=-1)
    with pytest.raises(DataError, match="empty"):
        activation_sparsity(graph, [])
    with pytest.raises(DataError):
        activation_sparsity(graph, [((torch.zeros(4, 7),), {})])
