"""Calibration statistics against numpy on all values at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from planish.analysis import collect
from planish.analysis.ranges import BINS
from planish.errors import DataError, OptionError
from planish.formats import get, int4, int8, uint8
from planish.frontends import capture
from planish.graph import Graph


class Scaled(nn.Module):
    """Gives back what it gets, through operations that can be watched."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6, bias=False)
        nn.init.eye_(self.linear.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x * 1.0)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return capture(Scaled().eval(), (torch.zeros(4, 6),), {"x": {0: "rows"}}, training=False)


def watch(graph: Graph, *batches: torch.Tensor, **options: object):
    return collect(graph, [((batch,), {}) for batch in batches], ["mul"], **options)["mul"]


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5))
def test_streaming_equals_all_at_once(graph: Graph, seed: int, scales: list[float]) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [scale * torch.randn(40, 6, generator=generator) for scale in scales]
    found = watch(graph, *batches, statistics=("histogram", "channel_absmax", "gram"))
    everything = torch.cat(batches)
    assert found.minmax() == (everything.min(), everything.max())
    assert torch.equal(found.channel_absmax, everything.abs().amax(0))
    exact = everything.double().T @ everything.double()
    rounding = 1e-6 * float(exact.diagonal().max())  # of sums whose terms are as large as the squares, and may cancel
    torch.testing.assert_close(found.gram.double(), exact, rtol=0, atol=rounding)
    assert found.count == everything.numel() == int(found.bins.sum())
    edges = (np.arange(BINS + 1) - BINS // 2) * found.width
    assert np.array_equal(np.histogram(everything.numpy().astype(np.float64), edges)[0], found.bins.numpy())
    for percent in (50, 90, 99):
        low, high = found.percentile(percent)
        cut = found.count * (100 - percent) / 200
        assert (everything < low).sum() <= cut <= (everything <= low + found.width).sum()
        assert (everything > high).sum() <= cut <= (everything >= high - found.width).sum()
    assert found.percentile(100) == found.minmax()


def test_zeros_first_and_zeros_only(graph: Graph) -> None:
    found = watch(graph, torch.zeros(4, 6), torch.ones(4, 6), torch.zeros(4, 6))
    assert int(found.bins.sum()) == found.count == 72
    assert watch(graph, torch.zeros(4, 6)).percentile(99) == (0, 0)


@pytest.mark.parametrize("form", [int8, int4, uint8])
def test_the_mse_range_beats_the_whole_range(graph: Graph, form: object) -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(2000, 6).relu(), torch.full((1, 6), 30.0)])
    found = watch(graph, x)

    def error(low: torch.Tensor, high: torch.Tensor) -> float:
        cast = form.per_tensor()
        return float((cast.cast(x, cast.parameters(low=low, high=high)) - x).square().mean())

    assert error(*found.mse(form)) <= error(*found.minmax()) * 1.001
    if form is int4:
        assert error(*found.mse(form)) < 0.7 * error(*found.minmax())


@pytest.mark.parametrize("text", ["ternary", "int4~mse", "lut4", "uint4-zp~mean"])
def test_rules_that_need_the_numbers_go_by_the_range(graph: Graph, text: str) -> None:
    low, high = watch(graph, torch.rand(200, 6)).mse(get(text))
    assert low < high


def test_channels_of_a_convolution_come_before_the_image() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 1))
    graph = capture(model.eval(), (torch.zeros(1, 3, 4, 5),), training=False)
    x = torch.rand(1, 3, 4, 5)
    assert torch.equal(collect(graph, [((x,), {})], ["relu"])["relu"].channel_absmax, x.amax((0, 2, 3)))


def test_inputs_can_be_watched(graph: Graph) -> None:
    name = graph.inputs[0].name
    assert collect(graph, [((torch.ones(4, 6),), {})], [name])[name].minmax() == (1, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refusals(graph: Graph, bad: float) -> None:
    with pytest.raises(DataError, match="empty"):
        collect(graph, [], ["mul"])
    with pytest.raises(DataError, match=r"(?s)NaN or infinity.*mul.*data\[1\]"):
        watch(graph, torch.zeros(4, 6), torch.full((4, 6), bad))
    with pytest.raises(DataError, match="an item is"):
        collect(graph, [torch.zeros(4, 6)], ["mul"])
    with pytest.raises(OptionError, match="unknown statistic"):
        watch(graph, torch.zeros(4, 6), statistics=("median",))
    with pytest.raises(OptionError, match="was not collected"):
        _ = watch(graph, torch.zeros(4, 6), statistics=("minmax",)).channel_absmax
    with pytest.raises(OptionError, match="no node"):
        collect(graph, [((torch.zeros(4, 6),), {})], ["nowhere"])
