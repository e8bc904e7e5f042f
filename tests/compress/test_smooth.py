"""Smooth: exact, folded where it can be, and better once quantized."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.compress import Prune, Quantize, Smooth
from planish.errors import DataError, OptionError
from planish.frontends import capture
from planish.graph import Graph
from planish.graph.evaluate import base_tensors
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


def test_a_weight_behind_a_mask_is_smoothed_and_keeps_its_zeros(graph):
    sparse = Prune("2:4", where="linear")(graph)
    small = Smooth(0.5)(sparse, items(graph))
    assert error(sparse, small) < 2e-6
    assert [step.action for step in Smooth(0.5).plan(sparse)] == [step.action for step in Smooth(0.5).plan(graph)]
    for name, tensor in base_tensors(sparse).items():
        if name.endswith("weight") and tensor.ndim == 2:
            assert torch.equal(tensor == 0, base_tensors(small)[name] == 0)
    assert not torch.equal(small.tensors["value.weight"], sparse.tensors["value.weight"])
    data, quantize = items(graph, 16), Quantize("int8", "uint8", where="linear")
    assert error(sparse, quantize(Smooth()(sparse, data), data)) < error(sparse, quantize(sparse, data))


def test_what_scaling_would_change_is_not_smoothed(graph):
    """A cast rounds scaled numbers otherwise."""
    with pytest.raises(OptionError, match="not yet quantized"):
        Smooth().plan(Quantize("int8", where="linear")(graph))


@pytest.mark.parametrize("kind", ["square", "gate"])
def test_a_product_that_is_no_mask_is_not_smoothed(kind):
    """The square of a scaled weight is scaled twice; a gate that depends on the input is nothing stored."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.plain = nn.Parameter(torch.randn(8, 8)), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            factor = self.weight if kind == "square" else x.mean()
            return self.plain(torch.relu(nn.functional.linear(x, self.weight * factor)))

    graph = capture(Product(), (torch.randn(3, 8),))
    assert [step.path for step in Smooth(0.5).plan(graph)] == ["plain"]
    assert error(graph, Smooth(0.5)(graph, items(graph))) < 2e-6


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


def test_few_items_do_not_smooth_by_chance():
    """Activations alike in all channels: what differs in eight rows is chance, and to smooth it would be worse."""
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(64, 32)).eval(), (torch.randn(2, 64),))
    few = [((torch.randn(2, 64),), {}) for _ in range(4)]
    smooth, quantize = Smooth()(graph, few), Quantize("int8", "uint8")
    plain, smoothed = (error(graph, quantize(each, few), seed=7) for each in (graph, smooth))
    assert smoothed <= 1.02 * plain


def awq_graph() -> Graph:
    """A layer whose input has a few large channels, as language models do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32))
    with torch.no_grad():
        model[0].weight[::16] *= 12
    return capture(model.eval(), (torch.randn(4, 64),))


@pytest.mark.parametrize("weights", ["int4", "int3@g16"])
def test_awq_helps_weights_alone(weights):
    graph = awq_graph()
    data = items(graph, 32)
    quantize = Quantize(weights, where="path('1')")
    smooth = Smooth(weights=weights, activations=None, where="path('1')")(graph, data)
    assert error(graph, smooth) < 1e-5
    assert error(graph, quantize(smooth, data)) < error(graph, quantize(graph, data))


def test_awq_finds_what_trying_every_alpha_finds():
    """Equations 4 and 5 of arXiv 2306.00978, by brute force on the data themselves."""
    graph = awq_graph()
    data = items(graph, 64)
    smooth = Smooth(weights="int3", activations=None, where="path('1')")(graph, data)
    x = torch.cat(
        [torch.nn.functional.linear(args[0], graph.tensors["0.weight"], graph.tensors["0.bias"]) for args, _ in data]
    )
    x, w = x.detach().double(), graph.tensors["1.weight"].detach().double()
    losses = []
    for step in range(21):
        s = x.abs().mean(0) ** (step / 20)
        s = s / (s.max() * s.min()).sqrt()
        delta = (w * s).abs().amax(1, keepdim=True) / 3
        off = x / s @ ((w * s / delta).round().clamp(-4, 3) * delta).T - x @ w.T
        losses.append(float((off - off.mean(0)).square().sum()))
    values = smooth.tensors["1.weight"].detach().double()
    s = (values / w).mean(0)
    delta = values.abs().amax(1, keepdim=True) / 3
    off = x / s @ ((values / delta).round().clamp(-4, 3) * delta).T - x @ w.T
    assert float((off - off.mean(0)).square().sum()) <= 1.05 * min(losses) < 0.9 * losses[0]


@pytest.mark.parametrize("folds", [True, False])
def test_channels_off_center_are_centered(folds):
    class Off(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.first, self.second = nn.LayerNorm(32), nn.Linear(32, 16), nn.Linear(32, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.norm(x)
            outputs = torch.cat([self.first(h), self.second(h)], -1)
            return outputs if folds else torch.cat([outputs, h], -1)

    torch.manual_seed(0)
    model = Off().eval()
    with torch.no_grad():
        model.norm.bias += 6 * torch.tensor([1.0, -1.0]).repeat(16)
    graph = capture(model, (torch.randn(8, 32),))
    data = items(graph, 128)
    smooth, quantize = Smooth()(graph, data), Quantize("int8", "uint8")
    assert any(name.endswith("__shift") for name in smooth.tensors) != folds
    assert error(graph, smooth) < 2e-6
    centered, scaled = (error(graph, quantize(each, data)) for each in (smooth, Smooth(0.8)(graph, data)))
    assert centered < 0.7 * scaled
