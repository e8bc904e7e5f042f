"""A graph in another type or on another device equals the model converted the same way."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from planish.errors import OptionError
from planish.formats import int8
from planish.frontends import capture
from planish.graph import Graph, ops
from tests.graph.test_graph import quantized


class Baked(nn.Module):
    """What an export bakes in: devices, types, a mask's most negative number; tied weights and a branch besides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.dropout = nn.Linear(6, 6), nn.Linear(6, 6), nn.Dropout(0.5)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(6, device=x.device).to(x.dtype) / 6
        state = torch.zeros(x.shape[0], 6, device=x.device, dtype=x.dtype)
        mask = torch.full((6,), torch.finfo(x.dtype).min, device=x.device, dtype=x.dtype).masked_fill(places > 0.3, 0)
        y = torch.softmax(self.first(x + places) + mask, -1) + state.to(x) + self.shift
        return torch.cond(x.sum() > 0, lambda v: self.second(v), lambda v: v * torch.ones(6, dtype=v.dtype), (y,))


@pytest.fixture(scope="module")
def model() -> Baked:
    torch.manual_seed(0)
    return Baked().eval()


@pytest.fixture(scope="module")
def graph(model: Baked) -> Graph:
    return capture(model, (torch.randn(3, 6),), dynamic={"x": {0: "batch"}})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_type_equals_the_models(graph: Graph, model: Baked, dtype: torch.dtype, tmp_path: Path) -> None:
    before = str(graph)
    converted = graph.to(dtype=dtype)
    twin = copy.deepcopy(model).to(dtype)
    assert str(graph) == before
    assert graph.tensors["first.weight"] is model.first.weight
    assert converted.tensors["first.weight"] is converted.tensors["second.weight"]
    assert converted.inputs[0].shape == ("batch", 6)
    assert {node.dtype for node in converted.select("any") if node.dtype and node.dtype.is_floating_point} == {dtype}
    converted.save(tmp_path / "c.planish")
    for x in (torch.rand(5, 6), -torch.rand(2, 6)):
        with torch.no_grad():
            expected = twin(x.to(dtype))
        torch.testing.assert_close(converted(x.to(dtype)), expected)
        torch.testing.assert_close(Graph.load(tmp_path / "c.planish")(x.to(dtype)), expected)
    converted.module(hierarchical=True).train()(torch.rand(2, 6, dtype=dtype)).sum().backward()


def test_there_and_back(graph: Graph) -> None:
    again = graph.to(dtype=torch.float64).to(dtype=torch.float32)
    x = torch.randn(3, 6)
    torch.testing.assert_close(again(x), graph(x))
    assert str(again) == str(graph)


def test_a_device_is_everywhere(graph: Graph) -> None:
    moved = graph.to("meta")
    assert {tensor.device.type for tensor in moved.tensors.values()} == {"meta"}
    assert {node.value.device.type for node in moved.nodes if isinstance(node.value, Tensor)} == {"meta"}
    assert moved.example[0][0].device.type == "meta"
    assert next(moved.module().parameters()).device.type == "meta"


def test_scales_keep_their_type(graph: Graph) -> None:
    converted = quantized(graph, graph.select(ops.linear)[0]).to(dtype=torch.bfloat16)
    cast = converted.select(ops.cast)[0]
    (name,) = (str(parameter.target) for parameter in cast.args[1])
    assert converted.tensors[name].dtype == torch.float32
    assert cast.dtype == torch.bfloat16
    weight = converted.tensors["first.weight"]
    expected = int8.cast(weight, (converted.tensors[name],))
    torch.testing.assert_close(converted.base_state_dict()["first.weight"], expected)


def test_integers_are_refused(graph: Graph) -> None:
    with pytest.raises(OptionError, match="floating point"):
        graph.to(dtype=torch.int8)
