"""Permute: equal outputs in any order, and an order that an exhaustive search does not beat."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from planish.compress import Permute, Prune, Quantize
from planish.compress.permute import best_order
from planish.compress.pruning.sparsity import Sparsity
from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Graph
from planish.recipe import Recipe
from tests.compress.models import attention, error, items, mlp

TWO_OF_FOUR = Sparsity.parse("2:4")


def kept(matters: torch.Tensor, sparsity: Sparsity = TWO_OF_FOUR) -> float:
    """What the largest of each run are, by the mask that pruning makes."""
    return float((matters * sparsity.keep(matters)).sum())


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 12, 1)
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def convolutions() -> Graph:
    torch.manual_seed(0)
    model = Convolutions()
    model.body[1].running_mean.normal_()
    return capture(model.eval(), (torch.randn(2, 3, 8, 8),))


@pytest.mark.parametrize("make", [attention, mlp, convolutions])
@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("online", [True, False])
def test_outputs_stay(make, calibrated, online):
    graph = make()
    small = Permute(online=online)(graph, items(graph) if calibrated else None)
    assert error(graph, small) < 1e-6
    moved = [name for name in graph.tensors if not torch.equal(graph.tensors[name], small.tensors[name])]
    assert moved


def test_neurons_cost_nothing_and_the_stream_is_gathered():
    graph = attention()
    steps = Permute().plan(graph)
    assert [(step.path, step.action) for step in steps] == [
        ("up", "64 neurons reordered for 2:4"),
        *((path, "32 inputs gathered in an order for 2:4") for path in ("query", "out", "up")),
    ]
    small = Permute()(graph, items(graph))
    assert sum(node.op == "index_select" for node in small.nodes) == 3
    inside = Permute(online=False)(graph, items(graph))
    assert not [node for node in inside.nodes if node.op == "index_select"]
    assert {step.action for step in Permute(online=False).plan(graph)} == {
        "64 neurons reordered for 2:4",
        "8 features reordered for 2:4",
    }


def test_zeros_cost_less():
    graph = attention()
    plain, ordered = (Recipe(*steps)(graph, items(graph)) for steps in ([PRUNE], [Permute(), PRUNE]))
    assert error(graph, ordered) < 0.97 * error(graph, plain)


PRUNE = Prune("2:4", by="wanda", where="linear")


@pytest.mark.parametrize(("pattern", "columns"), [("2:4", 8), ("1:4", 8), ("3:4", 8), ("1:2", 4), ("2:3", 6)])
def test_two_runs_are_divided_in_the_best_way(pattern, columns):
    sparsity, matters = Sparsity.parse(pattern), torch.rand(5, columns, generator=torch.Generator().manual_seed(1))
    every = max(kept(matters[:, list(order)], sparsity) for order in itertools.permutations(range(columns)))
    assert kept(matters[:, best_order(matters, sparsity, 1)], sparsity) == pytest.approx(every)


def test_an_order_without_loss_is_found():
    """Planted: two columns of each four are zero in the right order."""
    generator = torch.Generator().manual_seed(0)
    matters = torch.rand(6, 64, generator=generator) * torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(16)
    shuffled = matters[:, torch.cat([torch.arange(0, 64, 2), torch.arange(1, 64, 2)])]
    assert kept(shuffled) < 0.8 * float(matters.sum())
    assert kept(shuffled[:, best_order(shuffled, TWO_OF_FOUR)]) == pytest.approx(float(matters.sum()))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 10**6))
def test_it_is_an_order_and_never_a_worse_one(rows, runs, seed):
    matters = torch.rand(rows, 4 * runs, generator=torch.Generator().manual_seed(seed)) ** 4
    order = best_order(matters, TWO_OF_FOUR, 5, seed)
    assert sorted(order.tolist()) == list(range(4 * runs))
    assert kept(matters[:, order]) >= kept(matters) - 1e-4


def test_a_weight_that_another_layer_reads_keeps_its_order():
    torch.manual_seed(0)
    graph = capture(Tied().eval(), (torch.randn(2, 16),))
    small = Permute()(graph, items(graph))
    assert error(graph, small) < 1e-6
    assert torch.equal(small.tensors["first.weight"], graph.tensors["first.weight"])


@pytest.mark.parametrize("options", [{"sparsity": "50%"}, {"sparsity": "4:8"}, {"sweeps": 0}])
def test_bad_options(options):
    with pytest.raises(OptionError):
        Permute(**options)


@pytest.mark.parametrize("first", [Prune("2:4"), Quantize("int8"), Quantize("int8", "uint8")])
def test_what_has_its_order_is_refused(first):
    graph = attention()
    with pytest.raises(OptionError, match="before Prune and Quantize"):
        Permute().plan(Recipe(first)(graph, items(graph)))


def test_widths_of_no_whole_runs_are_refused():
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3)).eval(), (torch.randn(2, 6),))
    with pytest.raises(OptionError, match="could change places"):
        Permute().plan(graph)
