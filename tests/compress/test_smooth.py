"""Smooth: exact, folded where it can be, and better once quantized."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.compress import Quantize, Smooth
from planish.errors import DataError, OptionError
from planish.frontends import capture
from planish.graph import Graph
from tests.compress.models import attention, error, items, mlp


@pytest.fixture(scope="module")
def graph() -> Graph:
    return attention()


@pytest.mark.parametrize("alpha", ["auto", 0.5, 0.9])
def test_outputs_are_equal_and_the_graph_is_unchanged(graph, alpha):
    before, text = {name: tensor.clone() for name, tensor in graph.tensors.items()}, str(graph)
    assert error(graph, Smooth(alpha)(graph, items(graph))) < 2e-6
    assert str(graph) == text
    assert all(torch.equal(tensor, graph.tensors[name]) for name, tensor in before.items())


def test_folds_into_norms_and_through_attention(graph):
    smooth = Smooth(0.5)(graph, items(graph))
    actions = {step.path: step.action for step in Smooth(0.5).plan(graph)}
    assert actions["query"].endswith("folded into before")
    assert actions["out"].endswith("folded into value")
    assert actions["up"].endswith("one multiplication")  # a residual reads it too
    assert actions["down"].endswith("one multiplication")
    assert {name for name in smooth.tensors if name.endswith("__smooth")} == {"up.input__smooth", "down.input__smooth"}
    assert not torch.equal(smooth.tensors["value.weight"], graph.tensors["value.weight"])


def test_a_shape_that_mixes_channels_is_not_folded_through():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).unflatten(-1, (2, 4)).transpose(-1, -2).flatten(-2))

    graph = capture(Mixed(), (torch.randn(3, 8),))
    actions = {step.path: step.action for step in Smooth().plan(graph)}
    assert actions["second"].endswith("one multiplication")
    assert error(graph, Smooth(0.7)(graph, items(graph))) < 2e-6


def test_smoothing_helps_where_channels_differ(graph):
    data = items(graph, 16)
    quantize = Quantize("int8", "uint8", where="linear")
    plain = error(graph, quantize(graph, data))
    assert error(graph, quantize(Smooth()(graph, data), data)) < 0.85 * plain


def test_scales_are_those_of_the_paper():
    graph = mlp()
    data = items(graph)
    smooth = Smooth(0.6, where="path('0')")(graph, data)
    peak = torch.cat([args[0] for args, _ in data]).abs().amax(0)
    scale = peak**0.6 / graph.tensors["0.weight"].abs().amax(0) ** 0.4
    ratio = smooth.tensors["0.input__smooth"] * scale
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-4)


def test_bad_input(graph):
    with pytest.raises(OptionError, match="alpha"):
        Smooth(alpha=1.5)
    with pytest.raises(DataError, match="no calibration data"):
        Smooth()(graph)
    with pytest.raises(OptionError, match="not yet quantized"):
        Smooth().plan(Quantize("int8")(graph))
