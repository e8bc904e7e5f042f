"""Training on targets as a stage of a recipe."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import planish
from planish import Recipe
from planish.compress import Prune, Quantize
from planish.errors import DataError, OptionError
from planish.models.digits import batches
from planish.training import Fit, Training


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return planish.capture(Small(), (torch.randn(2, 64),), dynamic={"x": {0: "batch"}})


def accuracy(graph) -> float:
    return planish.metrics.accuracy(graph, batches("validation")).value


TRAIN = batches("train")


def test_it_learns_from_nothing(graph):
    assert accuracy(Recipe(Fit(epochs=6, learning_rate=1e-2))(graph, TRAIN)) > 0.9 > accuracy(graph) + 0.4


@pytest.mark.long
def test_it_trains_through_casts_and_masks(graph):
    first = Fit(epochs=4, learning_rate=1e-2)
    cut = Recipe(first, Prune(0.8, by="magnitude"), Quantize("int2"))(graph, TRAIN)
    again = Recipe(Fit(epochs=4, learning_rate=5e-3))(cut, TRAIN)
    assert accuracy(again) > accuracy(cut) + 0.1
    weights = {weight.name: str(weight) for weight in planish.analysis.weights(again)}
    assert weights == {weight.name: str(weight) for weight in planish.analysis.weights(cut)}


def test_it_is_what_train_does(graph):
    mine = Fit(epochs=2, batch_size=50, learning_rate=3e-3)(graph, TRAIN)
    theirs = planish.train(graph, list(TRAIN), Training(epochs=2, learning_rate=3e-3))
    for name, tensor in mine.tensors.items():
        torch.testing.assert_close(tensor, theirs.tensors[name])


@pytest.mark.long
def test_a_teacher_may_help(graph):
    teacher = Fit(epochs=6, learning_rate=1e-2)(graph, TRAIN)
    student = Recipe(Quantize("int2"), Fit(epochs=1, distillation=10.0))(teacher, TRAIN)
    alone = Recipe(Quantize("int2"), Fit(epochs=1))(teacher, TRAIN)
    x = next(iter(batches("validation")))[0][0]
    assert (student(x) - teacher(x)).square().mean() < (alone(x) - teacher(x)).square().mean()


def test_only_what_is_selected_learns(graph):
    result = Fit(epochs=1, where="path('head')")(graph, TRAIN)
    changed = {name for name in graph.parameter_names if not torch.equal(result.tensors[name], graph.tensors[name])}
    assert changed == {"head.weight", "head.bias"}


def test_bad_data_and_options(graph):
    with pytest.raises(DataError, match="no data"):
        Fit()(graph)
    with pytest.raises(DataError, match=r"args, kwargs, target(.|\n)*data\[0\]"):
        Fit()(graph, [((torch.randn(2, 64),), {})])
    with pytest.raises(OptionError, match="unknown loss"):
        Fit(loss="zero")
    with pytest.raises(OptionError, match="0 or more"):
        Fit(distillation=-1.0)
